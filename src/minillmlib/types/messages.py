"""Messages and their content."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self, TypeAlias, get_args

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import with_article
from minillmlib.types.media import Media, MediaPart
from minillmlib.types.reasoning import Reasoning
from minillmlib.types.tools import ToolCall
from minillmlib.types.values import check_choice, check_kind

CacheTtl: TypeAlias = Literal["5m", "1h"]


class Role(enum.StrEnum):
    """The author of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


SYSTEM, USER, ASSISTANT, TOOL = Role  # faster than an attribute of the enum
EMPTY: tuple[()] = ()


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """A piece of text among the parts of a message."""

    text: str

    def __post_init__(self) -> None:
        if type(self.text) is not str:
            if not isinstance(self.text, str):
                given = type(self.text).__name__
                raise InvalidParameterError(f"the text of a part must be a string, not {given}")
            msgspec.structs.force_setattr(self, "text", str.__str__(self.text))

    def as_text(self) -> str | None:
        """Return the text of this part, or None for a part that is not text."""
        return self.text


ContentPart: TypeAlias = TextPart | Media
PARTS = (TextPart, MediaPart)

MessageContent: TypeAlias = str | tuple[ContentPart, ...]


def content_text(content: MessageContent) -> str:
    """Return all text of a content, concatenated."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One turn of a conversation.

    `content` is a text or a tuple of parts; anything else raises `InvalidParameterError`. An
    assistant's message may have `tool_calls`, generated `media`, and the `reasoning` before it. A
    message of the role `tool` is the result of the call `tool_call_id`, with `is_error` if the tool
    failed. `cache_ttl` sets a cache breakpoint at its end, for five minutes or an hour.

    Examples:
        >>> Message.user("Hello").role
        <Role.USER: 'user'>
    """

    role: Role
    content: MessageContent
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    is_error: bool = False
    media: tuple[Media, ...] = ()
    reasoning: Reasoning | None = None
    cache_ttl: CacheTtl | None = None

    def __post_init__(self) -> None:
        role = self.role
        if not (  # trees hold millions of plain ones
            type(self.content) is str
            and (role is USER or role is ASSISTANT or role is SYSTEM)
            and self.tool_calls is EMPTY
            and self.media is EMPTY
            and self.tool_call_id is None
            and self.reasoning is None
            and self.cache_ttl is None
        ):
            self._check_fields()

    def _check_fields(self) -> None:
        if type(self.role) is not Role:
            if self.role not in list(Role):
                raise InvalidParameterError(
                    f"{self.role!r} is not a role; the roles are {', '.join(Role)}"
                )
            msgspec.structs.force_setattr(self, "role", Role(self.role))
        if not all(isinstance(call, ToolCall) for call in self.tool_calls):
            raise InvalidParameterError("tool_calls must be ToolCall objects")
        if not all(isinstance(part, MediaPart) for part in self.media):
            raise InvalidParameterError("the media of a message must be parts such as ImagePart")
        check_kind("the reasoning of a message", self.reasoning, Reasoning)
        check_choice("cache_ttl", self.cache_ttl, get_args(CacheTtl))
        is_result = isinstance(self.tool_call_id, str)
        if is_result != (self.role is Role.TOOL) or not isinstance(self.tool_call_id, str | None):
            raise InvalidParameterError(
                "a message has the id of a call (a string) if its role is tool, and only then"
            )
        if type(self.content) is not str:
            msgspec.structs.force_setattr(self, "content", _normalize_content(self.content))

    @classmethod
    def system(cls, content: str | Iterable[ContentPart]) -> Self:
        """Return a message with instructions to the model."""
        return cls(role=SYSTEM, content=content)  # type: ignore[arg-type] # see __post_init__

    @classmethod
    def user(cls, content: str | Iterable[ContentPart]) -> Self:
        """Return a message of the user."""
        return cls(role=USER, content=content)  # type: ignore[arg-type] # see __post_init__

    @classmethod
    def assistant(
        cls,
        content: str | Iterable[ContentPart],
        tool_calls: Iterable[ToolCall] = (),
        *,
        media: Iterable[Media] = (),
        reasoning: Reasoning | None = None,
    ) -> Self:
        """Return a message of the model, with its tool calls, generated media and reasoning."""
        return cls(
            role=ASSISTANT,
            content=content,  # type: ignore[arg-type] # see __post_init__
            tool_calls=tuple(tool_calls),
            media=tuple(media),
            reasoning=reasoning,
        )

    @classmethod
    def tool_result(
        cls, call_id: str, content: str | Iterable[ContentPart], *, is_error: bool = False
    ) -> Self:
        """Return the result of a tool for the call with this id."""
        return cls(
            role=TOOL,
            content=content,  # type: ignore[arg-type] # see __post_init__
            tool_call_id=call_id,
            is_error=is_error,
        )

    @property
    def text(self) -> str | None:
        """All text of the message, or None if it has no text."""
        content = self.content
        return (content if isinstance(content, str) else content_text(content)) or None

    @property
    def is_blank(self) -> bool:
        """Whether this is an empty system prompt, which is not sent."""
        return self.role is SYSTEM and self.content == ""

    @property
    def attachments(self) -> tuple[Media, ...]:
        """The images and other media in the content; generated ones are in `media`."""
        if isinstance(self.content, str):
            return ()
        return tuple(part for part in self.content if not isinstance(part, TextPart))


def has_breakpoint(messages: Sequence[Message]) -> bool:
    """Whether one of the messages has a cache breakpoint."""
    for message in messages:  # noqa: SIM110 - `any` takes three times as long
        if message.cache_ttl is not None:
            return True
    return False


def _normalize_content(content: object) -> MessageContent:
    if isinstance(content, str):  # a subclass such as an enum becomes a plain string
        return str.__str__(content)
    given = type(content).__name__
    if isinstance(content, Iterable) and not isinstance(content, bytes | Mapping):
        parts = tuple(content)
        odd = [type(part).__name__ for part in parts if not isinstance(part, PARTS)]
        if parts and not odd:
            return parts
        given = f"one with {with_article(odd[0])}" if odd else "an empty one"
    raise InvalidParameterError(
        "the content of a message must be a string or a sequence of parts such as "
        f"TextPart(...), not {given}"
    )
