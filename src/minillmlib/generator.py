"""A model, and everything that is needed to reach it."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Self, TypeAlias
from urllib.parse import SplitResult, urlsplit

import msgspec

from minillmlib.auth.credentials import (
    ClaudeSubscriptionToken,
    CredentialSource,
    EnvironmentKey,
    FixedCredential,
)
from minillmlib.auth.secret import (
    Auth,
    Secret,
    header_text_problem,
    is_header_name,
    protect_header,
)
from minillmlib.errors import InvalidParameterError
from minillmlib.providers.anthropic import AnthropicProvider
from minillmlib.providers.base import Provider
from minillmlib.providers.generic import GenericProvider
from minillmlib.providers.openai import OpenAiProvider
from minillmlib.providers.openrouter import OpenRouterProvider
from minillmlib.providers.published_prices import is_published, published_price
from minillmlib.transport.base import Transport
from minillmlib.types.budget import CostEstimate
from minillmlib.types.change import replace
from minillmlib.types.costs import TokenPrice
from minillmlib.types.limits import Limits
from minillmlib.types.messages import Message
from minillmlib.types.parameters import ParametersLike

__all__ = ["GeneratorInfo", "Headers"]

Headers: TypeAlias = tuple[tuple[str, str | Secret], ...]

OPENAI_URL = "https://api.openai.com/v1"
OPENROUTER_URL = "https://openrouter.ai/api/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
LOCAL_MODEL = "SmolLM2-135M-Instruct"
LOCAL_URL = "http://127.0.0.1:0/v1"  # the transport puts the port in when the server runs

# What an HTTP engine writes itself; two of a kind would desynchronize the connection.
FRAMING_HEADERS = ("content-length", "transfer-encoding", "connection", "host")

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KINDS: dict[str, type | UnionType] = {
    "provider": Provider,
    "credential": CredentialSource,
    "token_price": TokenPrice | None,
    "transport": Transport | None,
    "limits": Limits,
    "allow_http": bool,
}
NO_CREDENTIAL = FixedCredential(Auth.none())


class GeneratorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model, bound to a provider, an address, a credential and perhaps a price.

    Start from a preset and change it with the `with_*` methods; each gives a changed copy.
    A key from the environment is read when a request is built, so such a generator can be
    pickled without its secret. Its text form shows neither keys nor header values.

    `app_url` and `app_title` name the program for OpenRouter's statistics. `limits` bounds what
    is taken in of an answer. A secret is sent over `http://` to this machine only, unless
    `allow_http` says that the network between is trusted.
    """

    name: str
    base_url: str
    model: str
    provider: Provider
    credential: CredentialSource = NO_CREDENTIAL
    headers: Headers = ()
    app_url: str | None = None
    app_title: str | None = None
    token_price: TokenPrice | None = None
    limits: Limits = Limits()
    allow_http: bool = False
    transport: Transport | None = None

    def __post_init__(self) -> None:
        for what in ("name", "model"):
            _check_word(getattr(self, what), what)
        for what in ("app_url", "app_title"):
            if getattr(self, what) is not None:
                _check_word(getattr(self, what), what)
                problem = header_text_problem(getattr(self, what), f"the {what}")
                if problem is not None:
                    raise InvalidParameterError(problem)
        msgspec.structs.force_setattr(self, "base_url", _checked_base_url(self.base_url))
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind) or isinstance(getattr(self, name), type):
                given = type(getattr(self, name)).__name__
                msgspec.structs.force_setattr(self, name, None)  # it may be a misplaced key
                raise InvalidParameterError(
                    f"the {name} of a generator must be {_name_of(kind)}, not {given}"
                )
        problem = _headers_problem(self.headers)
        if problem is not None:
            raise InvalidParameterError(problem)
        headers = tuple((name, protect_header(name, value)) for name, value in self.headers)
        msgspec.structs.force_setattr(self, "headers", headers)

    @classmethod
    def openrouter(cls, model: str) -> Self:
        """A model at OpenRouter, with the key in `OPENROUTER_API_KEY`."""
        return cls(
            name="openrouter",
            base_url=OPENROUTER_URL,
            model=model,
            provider=OpenRouterProvider(),
            credential=EnvironmentKey(("OPENROUTER_API_KEY",)),
        )

    @classmethod
    def openai(cls, model: str) -> Self:
        """A model at OpenAI, with the key in `OPENAI_API_KEY`."""
        return cls(
            name="openai",
            base_url=OPENAI_URL,
            model=model,
            provider=OpenAiProvider(),
            credential=EnvironmentKey(("OPENAI_API_KEY",)),
        )

    @classmethod
    def anthropic(cls, model: str) -> Self:
        """A model at Anthropic on its native wire, with the key in `ANTHROPIC_API_KEY`."""
        return cls(
            name="anthropic",
            base_url=ANTHROPIC_URL,
            model=model,
            provider=AnthropicProvider(),
            credential=EnvironmentKey(("ANTHROPIC_API_KEY",)),
        )

    @classmethod
    def claude_subscription(cls, model: str) -> Self:
        """A model at Anthropic, paid by a Claude Pro or Max plan instead of an API key.

        The token comes from `ANTHROPIC_AUTH_TOKEN`, else from Claude Code's own file. Anthropic
        may refuse such tokens to other programs; the error then says so.
        """
        return cls(
            name="claude_subscription",
            base_url=ANTHROPIC_URL,
            model=model,
            provider=AnthropicProvider(),
            credential=ClaudeSubscriptionToken(),
        )

    @classmethod
    def custom(cls, name: str, base_url: str, model: str) -> Self:
        """A server of your own that speaks the OpenAI wire; open unless you add a key.

        `base_url` is everything before `/chat/completions`.
        """
        return cls(name=name, base_url=base_url, model=model, provider=GenericProvider())

    @classmethod
    def local(cls, model_file: str | os.PathLike[str] | None = None) -> Self:
        """A model on this machine, without a key: SmolLM2-135M, or any GGUF file.

        The first call starts the model's server, which ends with this process; the very first
        also downloads the model (93 MB, once). SmolLM2-135M is a tiny model for trying things
        out. Needs `minillmlib[local]`.
        """
        from minillmlib.local import LocalTransport  # noqa: PLC0415 - most programs never need it

        path = None if model_file is None else _absolute(model_file)
        return cls(
            name="local",
            base_url=LOCAL_URL,
            model=LOCAL_MODEL if path is None else path.name,
            provider=GenericProvider(),
            token_price=TokenPrice(0, 0),
            transport=LocalTransport(path),
        )

    @classmethod
    def from_spec(cls, spec: str) -> Self:
        """A generator from one string, for configuration files and command lines.

        `"openrouter:google/gemini-2.5-flash-lite"`, `"openai:gpt-4o-mini"`,
        `"anthropic:claude-haiku-4-5"`, `"claude_subscription:claude-haiku-4-5"`, `"local"`, or
        `"local:path/to/model.gguf"`.
        """
        preset, _, model = str(spec).partition(":")
        makers: dict[str, Callable[[str], Self]] = {
            "openrouter": cls.openrouter,
            "openai": cls.openai,
            "anthropic": cls.anthropic,
            "claude_subscription": cls.claude_subscription,
            "local": cls.local,
        }
        if spec == "local":
            return cls.local()
        if preset not in makers or not model:
            raise InvalidParameterError(
                f"{spec!r} is not a model; write provider:model with one of the providers "
                f"{', '.join(makers)}, or just local"
            )
        return makers[preset](model)

    def replace(self, **changes: object) -> Self:
        """A copy with some fields changed."""
        try:
            return replace(self, changes)
        except InvalidParameterError as error:
            problem = str(error)
        changes.clear()  # a misplaced key may be among them, and tracebacks show local variables
        raise InvalidParameterError(problem)

    def with_api_key(self, api_key: str) -> Self:
        """A copy with this key; the provider picks the header."""
        try:
            auth = Auth.api_key(Secret(api_key))
        finally:
            del api_key  # tracebacks show local variables, and it may have a typing error
        return self.replace(credential=FixedCredential(auth))

    def with_api_key_from_env(self, variable: str) -> Self:
        """A copy that takes its key from this variable where it is set, else as before."""
        if not VARIABLE.fullmatch(variable if type(variable) is str else ""):
            del variable  # it may be the key itself, and tracebacks show local variables
            raise InvalidParameterError(
                "with_api_key_from_env takes the name of an environment variable: letters, digits "
                "and _; a key itself is given with with_api_key"
            )
        return self.replace(credential=EnvironmentKey((variable,)).with_fallback(self.credential))

    def with_bearer_token(self, token: str) -> Self:
        """A copy that always sends `Authorization: Bearer` with this token."""
        try:
            auth = Auth.bearer_token(Secret(token, "the token"))
        finally:
            del token  # see with_api_key
        return self.replace(credential=FixedCredential(auth))

    def with_header(self, name: str, value: str | Secret) -> Self:
        """Return a copy that sends one more header, in place of any other of that name.

        The value is kept as a `Secret` if the name says that it is one: if it contains "key",
        "token", "secret", "password", "cookie" or "authorization".
        """
        problem = _header_problem(name, value)
        if problem is not None:
            del value  # see with_api_key
            raise InvalidParameterError(problem)
        others = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return self.replace(headers=(*others, (name, value)))

    def with_token_price(self, token_price: TokenPrice) -> Self:
        """A copy with this price, for providers that count tokens but name no cost."""
        return self.replace(token_price=token_price)

    def with_published_price(self) -> Self:
        """A copy with the price that the package genai-prices lists for this model, as of today.

        Needs the extra `prices`; nothing is fetched. A model that the table does not know at
        this address, or whose price is not one per token, gets none, and a warning is logged:
        its costs are `UNPRICED`, unless a price was set by hand. The price is the vendor's for
        a standard request; `source` on each cost names the table and the day.
        """
        price = published_price(self.base_url, self.model)
        if price is None and not is_published(self.token_price):
            return self
        return self.replace(token_price=price)

    def estimate_cost(
        self, messages: Sequence[Message], params: ParametersLike = None
    ) -> CostEstimate:
        """The most that one attempt to answer these messages can cost, or what is missing for it.

        Nothing is sent. See `CostEstimate`.
        """
        from minillmlib.client.estimate import estimated_cost  # noqa: PLC0415 - a level above

        return estimated_cost(messages, self, params)

    def with_provider(self, provider: Provider) -> Self:
        """A copy that speaks another wire."""
        return self.replace(provider=provider)

    def with_base_url(self, base_url: str) -> Self:
        """A copy at another address. The credential goes there too."""
        try:
            return self.replace(base_url=base_url)
        finally:
            del base_url  # it may hold a password; see with_api_key

    def with_transport(self, transport: Transport) -> Self:
        """A copy whose requests all go through this transport."""
        return self.replace(transport=transport)

    def __hash__(self) -> int:  # a `Secret` among the headers has none
        return hash((self.name, self.base_url, self.model))

    def __repr__(self) -> str:
        shown = f"{self.name}:{self.model} at {self.base_url}, {self.credential!r}"
        names = ", ".join(str(*pair[:1]) for pair in self.headers)
        return f"GeneratorInfo({shown}{f', headers {names}' if names else ''})"


def _name_of(kind: type | UnionType) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]


def _headers_problem(headers: object) -> str | None:
    """What is wrong with headers, in words that show no value; said by callers that hold none."""
    if not isinstance(headers, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 for pair in headers
    ):
        return "headers are (name, value) pairs; add them with with_header"
    problems = (_header_problem(name, value) for name, value in headers)
    return next(filter(None, problems), None)


def _header_problem(name: object, value: object) -> str | None:
    if not isinstance(name, str) or not isinstance(value, str | Secret):
        return "the name and the value of a header must be strings"
    if not is_header_name(name):
        return f"{name!r} is not a valid HTTP header name"
    if name.lower() in FRAMING_HEADERS:
        return f"the header {name} belongs to the connection; leave it out"
    if isinstance(value, Secret):  # which was checked when it was made
        return None
    return header_text_problem(value, f"the value of the header {name}")


def _absolute(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).absolute()
    except TypeError:
        raise InvalidParameterError(
            f"a model file is given by its path, not by a {type(path).__name__}"
        ) from None


def _check_word(text: object, what: str) -> None:
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        shown = repr(text) if isinstance(text, str) and "@" not in text else type(text).__name__
        raise InvalidParameterError(f"the {what} must be a line of text, not {shown}")


def _checked_base_url(base_url: object) -> str:
    """A base URL is an origin and perhaps a path. The error never shows a password in it."""
    url = base_url.strip() if isinstance(base_url, str) else base_url
    _check_word(url, "base_url")
    assert isinstance(url, str)
    if "@" in url:
        raise InvalidParameterError(
            "the base_url must not hold a user name or password; use with_api_key"
        )
    parts = _split_url(url)
    if parts is None or parts.scheme not in ("http", "https") or not _is_host(parts.hostname):
        raise InvalidParameterError(
            f"the base_url must look like https://host/path or http://host:port/path, not {url!r}"
        )
    if "?" in url or "#" in url:
        raise InvalidParameterError("the base_url must not hold a query or fragment")
    return url


def _split_url(url: str) -> SplitResult | None:
    """The parts of a URL with a valid port and only characters that a URL may have."""
    try:
        parts = urlsplit(url)
        is_valid = parts.port is None or parts.port >= 0
    except ValueError:
        return None
    return parts if is_valid and url.isascii() and " " not in url else None


def _is_host(name: str | None) -> bool:
    """Whether a resolver takes the name: labels of 1 to 63 characters."""
    if not name:
        return False
    return all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))
