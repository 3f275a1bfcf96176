"""Messages: who said what."""

import enum
from collections.abc import Iterable, Mapping
from typing import Literal, Self, TypeAlias, get_args

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.types.media import Media, MediaPart
from minillmlib.types.reasoning import Reasoning
from minillmlib.types.tools import ToolCall

__all__ = [
    "ASSISTANT",
    "SYSTEM",
    "CacheTtl",
    "ContentPart",
    "Message",
    "MessageContent",
    "Role",
    "TextPart",
    "content_text",
]

CacheTtl: TypeAlias = Literal["5m", "1h"]


class Role(enum.StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


SYSTEM, USER, ASSISTANT, TOOL = Role  # asking the enum costs more
NOTHING: tuple[()] = ()


class TextPart(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="text"):
    """A piece of text beside other parts of one message."""

    text: str

    def __post_init__(self) -> None:
        if type(self.text) is not str:
            if not isinstance(self.text, str):
                given = type(self.text).__name__
                raise InvalidParameterError(f"the text of a part is a string, not {given}")
            msgspec.structs.force_setattr(self, "text", str.__str__(self.text))

    def as_text(self) -> str | None:
        """The text of this part, or None for a part that is not text."""
        return self.text


ContentPart: TypeAlias = TextPart | Media
PARTS = (TextPart, MediaPart)

MessageContent: TypeAlias = str | tuple[ContentPart, ...]


def content_text(content: MessageContent) -> str:
    """All text of a content, joined."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One turn of a conversation.

    `content` is a text or a tuple of parts; `InvalidParameterError` for anything else. An
    assistant's message may hold the `tool_calls` it makes, the `media` it generated and the
    `reasoning` before it; a message of the role `tool` answers the call `tool_call_id`, and
    `is_error` tells the model that the tool failed. `cache_ttl` marks the prompt up to and with
    this message for the provider's cache, for five minutes or an hour.
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
        if type(self.role) is not Role:
            msgspec.structs.force_setattr(self, "role", _checked_role(self.role))
        is_plain = (  # trees are made of millions of these
            self.tool_calls is NOTHING
            and self.media is NOTHING
            and self.tool_call_id is None
            and self.reasoning is None
            and self.cache_ttl is None
            and self.role is not TOOL
        )
        if not is_plain:
            self._check_fields()
        if type(self.content) is not str:
            msgspec.structs.force_setattr(self, "content", _as_content(self.content))

    def _check_fields(self) -> None:
        if not all(isinstance(call, ToolCall) for call in self.tool_calls):
            raise InvalidParameterError("tool_calls are ToolCall objects")
        if not isinstance(self.reasoning, Reasoning | None):
            raise InvalidParameterError("a message's reasoning is a Reasoning object")
        if not all(isinstance(part, MediaPart) for part in self.media):
            raise InvalidParameterError("a message's media are parts such as ImagePart")
        if self.cache_ttl not in (None, *get_args(CacheTtl)):
            raise InvalidParameterError(f"cache_ttl is '5m' or '1h', not {self.cache_ttl!r}")
        is_result = isinstance(self.tool_call_id, str)
        if is_result != (self.role is Role.TOOL) or not isinstance(self.tool_call_id, str | None):
            raise InvalidParameterError(
                "a message of the role tool, and no other, has the id of a call (a string)"
            )

    @classmethod
    def system(cls, content: str | Iterable[ContentPart]) -> Self:
        """Instructions to the model."""
        return cls(role=SYSTEM, content=content)  # type: ignore[arg-type] # see __post_init__

    @classmethod
    def user(cls, content: str | Iterable[ContentPart]) -> Self:
        """What the person says."""
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
        """What the model says, the tools it calls, what it made, and what it thought before."""
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
        """What a tool gave, for the call with this id."""
        return cls(
            role=TOOL,
            content=content,  # type: ignore[arg-type] # see __post_init__
            tool_call_id=call_id,
            is_error=is_error,
        )

    @property
    def text(self) -> str | None:
        """All text of the message, or None if it has no text."""
        return content_text(self.content) or None

    @property
    def attachments(self) -> tuple[Media, ...]:
        """The images and the like that were said with the text, without what a model made."""
        if isinstance(self.content, str):
            return ()
        return tuple(part for part in self.content if not isinstance(part, TextPart))


def _checked_role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        roles = ", ".join(Role)
        raise InvalidParameterError(f"{role!r} is not a role; roles are {roles}") from None


def _as_content(content: object) -> MessageContent:
    if type(content) is str:
        return content
    if isinstance(content, str):  # an enum, a template's text: from here on plain text
        return str.__str__(content)
    if isinstance(content, Iterable) and not isinstance(content, bytes | Mapping):
        content = tuple(content)
        if content and all(isinstance(part, PARTS) for part in content):
            return content
    raise _wrong_content(content)


def _wrong_content(content: object) -> InvalidParameterError:
    given = type(content).__name__
    if isinstance(content, tuple) and content:
        given = f"one with a {type(content[0]).__name__}"
    return InvalidParameterError(
        "a message's content is a string or a sequence of parts such as TextPart(text=...), "
        f"not {given}"
    )
