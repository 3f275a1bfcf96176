"""The vendors' own request types as a strict oracle, and their own clients on scripted bytes.

Use it to check a request body. A library's request types are meant for type checkers and for its own
callers: at run time an unknown key passes, an `Iterable` is read lazily, and beside the wire's form
stands what only Python can hold, such as an open file or an object from an earlier answer. Here each
type is rebuilt as the wire's form alone, with no other key at any depth.
"""

from __future__ import annotations

import collections.abc
import functools
import os
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, Required, Union

import httpx2
import pydantic
import typing_extensions
from typing_extensions import TypedDict

PLAIN = (str, int, float, bool, type(None), object, Any)
LISTS = (list, collections.abc.Iterable, collections.abc.Sequence)
UNIONS = (Union, types.UnionType)
FOR_PYTHON_ONLY = (typing.IO, os.PathLike, pydantic.BaseModel)


Keys = tuple[tuple[str, type], ...]


@functools.cache
def strict_adapter(wire_type: type, more: Keys = ()) -> pydantic.TypeAdapter:
    """A validator that takes a body only if it is exactly of this type, at every depth.

    `more` are optional keys, with their types, that the body itself may have besides.
    """
    return pydantic.TypeAdapter(_strict_object(wire_type, more))


def check_body(body: bytes, wire_type: type, more: Keys = ()) -> None:
    """Raise pydantic's `ValidationError` unless the JSON text is exactly of this type."""
    strict_adapter(wire_type, more).validate_json(body, strict=True)


@functools.cache
def _strict(kind: Any) -> Any:
    """The type as the wire holds it. A construct not met before is an error, not a pass."""
    if typing_extensions.is_typeddict(kind):
        return _strict_object(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN or origin is Literal:
        return _strict_word(arguments) if origin is Literal else kind
    if origin is Annotated:  # the library's own hints on how to send it
        return _strict(arguments[0])
    if origin in UNIONS:
        return _strict_union(arguments)
    if origin in LISTS:  # a lazily read one would never be looked into
        return list[_strict(arguments[0])]
    if origin is dict:
        return dict[_strict(arguments[0]), _strict(arguments[1])]
    raise TypeError(f"no strict form is known for {kind!r}")


def _strict_word(words: tuple[Any, ...]) -> Any:
    """One of these words. Python takes 1 for True, and so would the validator."""
    if words in ((True,), (False,)):
        return Annotated[bool, pydantic.AfterValidator(_only(words[0]))]
    return Literal[words]


def _only(word: bool) -> Callable[[bool], bool]:
    def check(value: bool) -> bool:
        if value is not word:
            raise ValueError(f"must be {word}")
        return value

    return check


def _strict_object(kind: Any, more: Keys = ()) -> Any:
    fields = {name: NotRequired[hint] for name, hint in more}
    for name, hint in typing_extensions.get_type_hints(kind, include_extras=True).items():
        # Written-out annotations hide `Required` from the class, so it is looked for here.
        is_required = typing.get_origin(hint) is Required or name in kind.__required_keys__
        if typing.get_origin(hint) in (Required, NotRequired):
            (hint,) = typing.get_args(hint)  # noqa: PLW2901 - the same hint, unwrapped
        fields[name] = Required[_strict(hint)] if is_required else NotRequired[_strict(hint)]
    strict = TypedDict(kind.__name__, fields)
    strict.__pydantic_config__ = {"strict": True, "extra": "allow" if _is_open(kind) else "forbid"}
    return strict


def _is_open(kind: Any) -> bool:
    """Whether the vendor itself lets further keys in, as in a JSON schema."""
    return getattr(kind, "__pydantic_config__", {}).get("extra") == "allow"


def _strict_union(members: tuple[Any, ...]) -> Any:
    wired = [member for member in members if not _is_for_python_only(member)]
    if any(typing_extensions.is_typeddict(member) and _is_open(member) for member in wired):
        # Beside a named form of a JSON schema stands any dictionary at all.
        wired = [member for member in wired if typing.get_origin(member) is not dict]
    objects = [_strict(member) for member in wired if typing_extensions.is_typeddict(member)]
    others = [_strict(member) for member in wired if not typing_extensions.is_typeddict(member)]
    if len(objects) > 1 and (tag := _tag_of(objects)):  # for errors that name the one meant
        objects = [Annotated[Union[tuple(objects)], pydantic.Discriminator(tag)]]  # noqa: UP007
    return Union[tuple(objects + others)]  # noqa: UP007 - of a list


def _is_for_python_only(kind: Any) -> bool:
    """An open file, a path, or an object of an earlier answer, which lets any key in."""
    plain = typing.get_origin(kind) or kind
    if plain is Annotated:
        return _is_for_python_only(typing.get_args(kind)[0])
    if plain in UNIONS:
        return all(map(_is_for_python_only, typing.get_args(kind)))
    return isinstance(plain, type) and issubclass(plain, FOR_PYTHON_ONLY)


def _tag_of(objects: list[Any]) -> str | None:
    """The key by which the forms of an object are told apart, if each has its own word."""
    for tag in ("type", "role"):
        words = [_words(kind.__annotations__.get(tag)) for kind in objects]
        flat = [word for group in words for word in group]
        if all(words) and len(set(flat)) == len(flat):
            return tag
    return None


def _words(hint: Any) -> tuple[str, ...]:
    if typing.get_origin(hint) is not Required:
        return ()
    (kind,) = typing.get_args(hint)
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def http_client_with(body: bytes, content_type: str) -> httpx2.Client:
    """Return the HTTP client for a vendor's library; every request gets these bytes."""
    headers = {"content-type": content_type}
    answer = httpx2.Response(200, headers=headers, content=body)
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))
