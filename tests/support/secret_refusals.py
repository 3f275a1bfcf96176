"""Every way in which a key is refused before anything is sent: bad ones, and good ones misplaced."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from minillmlib import (
    ChatNode,
    GeneratorInfo,
    GenericProvider,
    NodeCompletionParameters,
    OpenAiProvider,
    ReadError,
    Secret,
    Transport,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

__all__ = ["MISPLACED", "REFUSALS", "Place"]

VARIABLE = "REFUSED_KEY"
URL = "http://127.0.0.1:9/v1"
OPENAI = GeneratorInfo.openai("m")


@dataclass
class Place:
    """Where the key comes from, and what would carry it."""

    key: str
    folder: Path
    setenv: Callable[[str, str], None]
    transport: Transport

    def custom(self) -> GeneratorInfo:
        return GeneratorInfo.custom("c", URL, "m").with_transport(self.transport)

    def from_variable(self) -> GeneratorInfo:
        self.setenv(VARIABLE, self.key)
        return self.custom().with_api_key_from_env(VARIABLE)

    def of_vendor(self, preset: str, variable: str) -> GeneratorInfo:
        self.setenv(variable, self.key)
        return getattr(GeneratorInfo, preset)("m").with_transport(self.transport)

    def write(self, content: object, cut: int | None = None) -> None:
        text = json.dumps(content)
        self.folder.joinpath(".credentials.json").write_text(text[:cut])

    def from_file(self, **login: object) -> GeneratorInfo:
        self.setenv("CLAUDE_CONFIG_DIR", str(self.folder))
        self.write({"claudeAiOauth": {"accessToken": self.key, "refreshToken": self.key, **login}})
        return GeneratorInfo.claude_subscription("m").with_transport(self.transport)


Way = Callable[[Place], object]


async def whole(generator: GeneratorInfo, **settings: object) -> None:
    await ChatNode.root("s").chat("u", generator, NodeCompletionParameters(**settings))


async def streamed(generator: GeneratorInfo) -> None:
    async with ChatNode.root("s").chat_streaming("u", generator) as stream:
        await anext(stream)


class AddsHeader(GenericProvider):
    """Adds a header that no check has seen."""

    def __init__(self, value: str) -> None:
        super().__init__()
        self.added = Secret.__new__(Secret)  # hidden, like a careful provider would keep it
        self.added._text = value

    def auth_headers(self, auth):
        return [*super().auth_headers(auth), ("X-Added", self.added.expose_secret())]


class ChangesBetween(ScriptedTransport):
    """Fails once; by the next attempt the variable has another value."""

    def __init__(self, place: Place) -> None:
        super().__init__([])
        self._change = lambda: place.setenv(VARIABLE, place.key)

    async def send(self, request):
        self._change()
        raise ReadError("the connection broke")


class ChangesFile(ScriptedTransport):
    """Refuses the credential; by then the file has another."""

    def __init__(self, place: Place) -> None:
        super().__init__([ScriptedReply.json({"error": {"message": "no"}}, status=401)])
        self._change = lambda: place.write({"claudeAiOauth": {"accessToken": place.key}})

    async def send(self, request):
        self._change()
        return await super().send(request)


def changed_variable(place: Place) -> Awaitable[None]:
    place.setenv(VARIABLE, "sk-good-at-first")
    generator = place.custom().with_api_key_from_env(VARIABLE)
    return whole(generator.with_transport(ChangesBetween(place)), retry=1, back_off_time=0.0)


def changed_file(place: Place) -> Awaitable[None]:
    generator = place.from_file(accessToken="good-at-first")
    return whole(generator.with_transport(ChangesFile(place)))


def added_header(place: Place) -> GeneratorInfo:
    provider = AddsHeader(place.key)
    return place.custom().with_provider(provider).with_api_key("sk-a-good-one")


def with_headers(headers: object) -> GeneratorInfo:
    return GeneratorInfo(
        name="n", base_url=URL, model="m", provider=OpenAiProvider(), headers=headers
    )


# For keys with a character that no header can carry.
REFUSALS: dict[str, Way] = {
    "as a secret": lambda place: Secret(place.key),
    "as a key": lambda place: OPENAI.with_api_key(place.key),
    "as a token": lambda place: OPENAI.with_bearer_token(place.key),
    "in a header": lambda place: OPENAI.with_header("X-Key", place.key),
    "in headers replaced": lambda place: OPENAI.replace(headers=(("X-Key", place.key),)),
    "in the headers of a new one": lambda place: with_headers((("X-Key", place.key),)),
    "from a variable": lambda place: place.from_variable().credential.resolve(),
    "from a variable, in a call": lambda place: whole(place.from_variable()),
    "from a variable, in a stream": lambda place: streamed(place.from_variable()),
    "from OpenAI's variable": lambda p: whole(p.of_vendor("openai", "OPENAI_API_KEY")),
    "from OpenRouter's variable": lambda p: whole(p.of_vendor("openrouter", "OPENROUTER_API_KEY")),
    "from Anthropic's variable": lambda p: whole(p.of_vendor("anthropic", "ANTHROPIC_API_KEY")),
    "from the subscription's variable": lambda p: p.of_vendor(
        "claude_subscription", "ANTHROPIC_AUTH_TOKEN"
    ).credential.resolve(),
    "from the subscription's variable, in a call": lambda p: whole(
        p.of_vendor("claude_subscription", "ANTHROPIC_AUTH_TOKEN")
    ),
    "from the file": lambda place: place.from_file().credential.resolve(),
    "from the file, in a call": lambda place: whole(place.from_file()),
    "from the file, in a stream": lambda place: streamed(place.from_file()),
    "from a variable that changed": changed_variable,
    "from a file that changed": changed_file,
    "in a provider's header": lambda place: whole(added_header(place)),
    "in a provider's header, in a stream": lambda place: streamed(added_header(place)),
}

# These end with an error that does not speak of the key's characters.
SILENT = ("from a file that changed",)


def missing_variable(place: Place) -> Awaitable[None]:
    place.setenv(VARIABLE, place.key)
    generator = OPENAI.with_transport(place.transport).with_header("X-Key", place.key.strip())
    return whole(generator.with_api_key_from_env("NOT_SET"))


def cut_file(place: Place) -> object:
    generator = place.from_file()
    place.write({"claudeAiOauth": {"accessToken": place.key}}, cut=-3)
    return generator.credential.resolve()


def marked_file(place: Place) -> object:
    """Cut behind a byte order mark."""
    generator = place.from_file()
    path = place.folder.joinpath(".credentials.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()[:-3])
    return generator.credential.resolve()


def latin_file(place: Place) -> object:
    generator = place.from_file()
    path = place.folder.joinpath(".credentials.json")
    path.write_bytes(path.read_bytes().replace(b'"}', b'\xe9"}'))
    return generator.credential.resolve()


def odd_file(place: Place) -> object:
    generator = place.from_file()
    place.write(["claudeAiOauth", place.key])
    return generator.credential.resolve()


def expired(place: Place) -> GeneratorInfo:
    return place.from_file(expiresAt=(time.time() - 60) * 1000)


# For keys that could be sent, in a place where no key belongs or where another thing is wrong.
MISPLACED: dict[str, Way] = {
    "no such variable": missing_variable,
    "as bytes": lambda place: OPENAI.with_api_key(place.key.encode()),
    "as a token of bytes": lambda place: OPENAI.with_bearer_token(place.key.encode()),
    "as a header of bytes": lambda place: OPENAI.with_header("X-Key", place.key.encode()),
    "in a header of the connection": lambda p: OPENAI.with_header("Content-Length", p.key),
    "in a header with a bad name": lambda place: OPENAI.with_header("X Key", place.key),
    "as a credential": lambda place: OPENAI.replace(credential=place.key),
    "as the provider of a new one": lambda place: GeneratorInfo(
        name="n", base_url=URL, model="m", provider=place.key
    ),
    "as an unknown field": lambda place: OPENAI.replace(api_key=place.key),
    "as headers of another type": lambda place: with_headers({"X-Key": place.key.strip()}),
    "in the user's part of a URL": lambda place: OPENAI.with_base_url(
        f"https://me:{place.key.strip()}@host.example/v1"
    ),
    "as the name of a variable": lambda place: OPENAI.with_api_key_from_env(
        place.key.strip()
    ).credential.resolve(),
    "in an expired file": lambda place: expired(place).credential.resolve(),
    "in an expired file, in a call": lambda place: whole(expired(place)),
    "in a file that is cut": cut_file,
    "in a file that is cut, behind a byte order mark": marked_file,
    "in a file that is no UTF-8": latin_file,
    "in a file of another shape": odd_file,
}
