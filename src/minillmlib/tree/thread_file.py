"""One conversation as a JSON document: our format, and two that users have."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping

import msgspec
from msgspec.structs import replace

from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.json_value import JsonObject, JsonValue, excerpt, excerpt_of, with_article
from minillmlib.tree.file_kinds import FileKind, kind_of
from minillmlib.tree.records import FormatValue, encode_lossy
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, VideoPart
from minillmlib.types.messages import CacheTtl, ContentPart, Message, Role, TextPart
from minillmlib.types.reasoning import BLOCK_KEYS, Reasoning, ReasoningBlock
from minillmlib.types.tools import ToolCall

VERSION = 1
TAG = "minillmlib thread"
ROLES = {role.value: role for role in Role} | {"developer": Role.SYSTEM}

REASONING_TEXTS = ("reasoning_content", "reasoning")
_MEMBERS = {"role", "content", "tool_calls", "tool_call_id", "is_error"}
_MORE_MEMBERS: dict[Role, set[str]] = {
    Role.ASSISTANT: {"refusal", *REASONING_TEXTS, *BLOCK_KEYS},
    Role.TOOL: {"name"},  # of the function, as its call has it
}


class Thread(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=TAG):
    """Messages and the values of their placeholders; None is one that a call must give."""

    version: int
    messages: list[Message]
    format_kwargs: dict[str, FormatValue] = {}


def thread_json(messages: list[Message], format_kwargs: dict[str, FormatValue]) -> bytes:
    """Encode a conversation as a document of our format."""
    document = Thread(VERSION, messages, format_kwargs)
    return msgspec.json.format(encode_lossy(document), indent=1) + b"\n"


def thread_from_json(data: bytes | str) -> tuple[list[Message], dict[str, FormatValue]]:
    """Decode a document and return its messages and the values of its placeholders.

    Takes our format, that of the Rust crate (`{"prompts": [...], "required_kwargs": {...}}`)
    and a plain list of `{"role": ..., "content": ...}` as chat-completions servers take it.
    Raises `StorageError` that names the place it does not understand.
    """
    try:
        thread = _parse_thread(msgspec.json.decode(_without_mark(data)))
    except (ValueError, TypeError, RecursionError, MiniLLMError) as error:
        if (kind := kind_of(data)) not in (None, FileKind.THREAD):
            raise StorageError(kind.value) from None
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"it is no conversation: {excerpt(str(error))}") from None
    if not thread.messages:
        raise StorageError("it holds no message")
    return thread.messages, thread.format_kwargs


def _without_mark(data: bytes | str) -> bytes | str:
    """Return a document without the byte order mark that Windows editors put before it."""
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    return bytes(data).removeprefix(BOM_UTF8)


def as_message(value: Message | JsonObject, place: int) -> Message:
    """Return a message of a list, which may be a dictionary of OpenAI's chat completions."""
    if isinstance(value, Message):
        return value
    if not isinstance(value, dict):
        raise InvalidParameterError(
            "a message is a Message, such as Message.user(text), or a dictionary such as "
            f"{{'role': 'user', 'content': text}}; message {place} is "
            f"{with_article(type(value).__name__)}"
        )
    try:
        return _parse_message(value, f"message {place}")
    except StorageError as error:
        raise InvalidParameterError(str(error)) from None


def _parse_thread(raw: JsonValue) -> Thread:
    match raw:
        case list():
            return Thread(VERSION, _parse_messages(raw, "the list"))
        case {"prompts": prompts, **more}:
            _refuse_unknown(more, {"required_kwargs"}, "the document")
            try:
                kwargs = msgspec.convert(more.get("required_kwargs"), dict[str, FormatValue] | None)
            except ValueError as error:
                raise StorageError(f"required_kwargs: {excerpt(str(error))}") from None
            return Thread(VERSION, _parse_messages(prompts, "prompts"), kwargs or {})
    thread = msgspec.convert(raw, Thread)
    if thread.version != VERSION:
        version = excerpt_of(thread.version, 60)
        raise StorageError(f"it is of version {version}, this library reads {VERSION}")
    return thread


def _parse_messages(raw: JsonValue, where: str) -> list[Message]:
    if not isinstance(raw, list):
        raise StorageError(f"{where} is no list but {excerpt_of(raw, 60)}")
    return [_parse_message(item, f"{where}[{place}]") for place, item in enumerate(raw)]


def _parse_message(raw: JsonValue, where: str) -> Message:
    if not isinstance(raw, dict):
        raise StorageError(f"{where} is no message but {excerpt_of(raw, 60)}")
    role, is_error = raw.get("role"), raw.get("is_error")
    if not isinstance(role, str) or role not in ROLES:
        raise StorageError(f"{where}.role is {excerpt_of(role, 60)}")
    content, refusal = raw.get("content"), raw.get("refusal")
    known = _MEMBERS | _MORE_MEMBERS.get(ROLES[role], set())
    _refuse_unknown(raw, known - {"refusal"} if content else known, where)
    if is_error not in (None, True, False):
        raise StorageError(f"{where}.is_error is {excerpt_of(is_error, 60)}")
    try:
        return Message(
            role=ROLES[role],
            content=_parse_content(
                refusal if content in (None, "") else content, f"{where}.content"
            ),
            tool_calls=tuple(_parse_calls(raw.get("tool_calls"), f"{where}.tool_calls")),
            tool_call_id=raw.get("tool_call_id"),
            is_error=is_error is True,
            reasoning=_parse_reasoning(raw, where),
            cache_ttl=_parse_cache_ttl(content),
        )
    except StorageError:
        raise
    except MiniLLMError as error:
        raise StorageError(f"{where}: {excerpt(str(error))}") from None


def _parse_reasoning(raw: JsonObject, where: str) -> Reasoning | None:
    """Return the reasoning of a message. Its model is unknown, so it is sent to none."""
    texts = {key: raw[key] for key in REASONING_TEXTS if raw.get(key)}
    blocks = {key: raw[key] for key in BLOCK_KEYS if raw.get(key)}
    try:
        text = next(iter(msgspec.convert(texts, dict[str, str]).values()), "")
        fields = next(iter(msgspec.convert(blocks, dict[str, list[JsonObject]]).values()), [])
    except ValueError as error:
        raise StorageError(
            f"{where} has reasoning that cannot be read: {excerpt(str(error))}"
        ) from None
    key = next(iter({**blocks, **texts}), None)
    kept = tuple(ReasoningBlock(fields=block) for block in fields)
    return None if key is None else Reasoning(text=text, blocks=kept, key=key)


def _parse_cache_ttl(content: JsonValue) -> CacheTtl | None:
    """Return the cache breakpoint on the last part, as servers of Claude take it."""
    match content:
        case [*_, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}]:
            return "1h"
        case [*_, {"cache_control": {"type": "ephemeral", "ttl": None | "5m"}}]:
            return "5m"
        case [*_, {"cache_control": {"type": "ephemeral", **more}}] if not more:
            return "5m"
    return None


def _parse_content(raw: JsonValue, where: str) -> str | tuple[ContentPart, ...]:
    if raw is None or isinstance(raw, str):
        return raw or ""
    if not isinstance(raw, list):
        raise StorageError(f"{where} is {excerpt_of(raw, 60)}")
    last = len(raw) - 1
    return tuple(
        _parse_part(part, f"{where}[{place}]", is_last=place == last)
        for place, part in enumerate(raw)
    )


def _parse_part(raw: JsonValue, where: str, *, is_last: bool) -> ContentPart:
    if not isinstance(raw, dict) or not isinstance(kind := raw.get("type"), str):
        raise StorageError(f"{where} is not a part of a message: {excerpt_of(raw, 60)}")
    content, rest = raw.get(kind), dict[object, object]()
    part: ContentPart
    match kind, content:
        case "text" | "refusal", str():
            part = TextPart(text=content)
        case "image_url", {"url": str() as url, **rest}:
            part = replace(ImagePart.from_url(url), detail=rest.pop("detail", None))
        case "input_audio", {"data": str() as data, "format": str() as form, **rest}:
            part = AudioPart.from_url(f"data:audio/{form};base64,{data}")
        case "video_url", {"url": str() as url, **rest}:
            part = VideoPart.from_url(url)
        case "file", {"file_data": str() as url, **rest}:
            part = replace(DocumentPart.from_url(url), filename=rest.pop("filename", None))
        case _:
            raise StorageError(
                f"{where} is neither text nor a known kind of media: {excerpt_of(raw, 60)}"
            )
    has_ttl = is_last and _parse_cache_ttl([raw]) is not None
    _refuse_unknown(raw, {"type", kind, *(("cache_control",) if has_ttl else ())}, where)
    _refuse_unknown(rest, set(), f"{where}.{kind}")
    return part


def _parse_calls(raw: JsonValue, where: str) -> Iterator[ToolCall]:
    if raw is not None and not isinstance(raw, list):
        raise StorageError(f"{where} is no list but {excerpt_of(raw, 60)}")
    for place, call in enumerate(raw or ()):
        match call:
            case {
                "id": str() as id_,
                "function": {"name": str() as name, "arguments": arguments, **inner},
                **outer,
            } if outer.get("type") in ("function", "", None):
                if not isinstance(arguments, str):
                    arguments = msgspec.json.encode(arguments).decode()
                extra = _call_extra(outer, "function", inner)
                yield ToolCall(id=id_, name=name, arguments=arguments, extra=extra)
            case {
                "id": str() as id_,
                "type": "custom" as kind,
                "custom": {"name": str() as name, "input": str() as text, **inner},
                **outer,
            }:
                extra = {"type": kind} | _call_extra(outer, kind, inner)
                yield ToolCall(id=id_, name=name, arguments=text, extra=extra)
            case _:
                raise StorageError(f"{where}[{place}] is no call: {excerpt_of(call, 60)}")


def _call_extra(
    outer: Mapping[object, JsonValue], kind: str, inner: Mapping[object, JsonValue]
) -> JsonObject:
    """Return the unread keys of a call, with those of the object in it under its kind."""
    extra = {str(key): outer[key] for key in outer if key not in ("type", "index")}
    return extra | {kind: inner} if inner else extra


def _refuse_unknown(raw: Mapping[object, JsonValue], known: set[str], where: str) -> None:
    """Refuse unknown members, unless they are empty, as in messages that packages dump."""
    unknown = sorted(str(name) for name in raw if name not in known and not _is_empty(raw[name]))
    if unknown:
        raise StorageError(f"{where} has what is not known here: {excerpt(', '.join(unknown))}")


def _is_empty(value: JsonValue) -> bool:
    return value is None or value is False or value in ("", [], {})
