"""Turns a call into an HTTP request. Pure: nothing is written elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.redaction import Redactor
from minillmlib.auth.secret import Auth, Secret, header_problem
from minillmlib.client.prefix_cache import EncodedPrefix
from minillmlib.client.prepare import Call, model_key, provider_error
from minillmlib.errors import InvalidParameterError, MiniLLMError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, T, encode_json, excerpt
from minillmlib.protocols.batches.base import ApiRequest
from minillmlib.protocols.chat_completions.request import omitted_reasoning
from minillmlib.providers.base import Provider
from minillmlib.transport.base import HttpRequest
from minillmlib.transport.proxy import ENVIRONMENT, is_loopback, secrets_of, show_proxy
from minillmlib.types.messages import SYSTEM, TOOL, Message, has_breakpoint
from minillmlib.types.responses import RequestReport
from minillmlib.version import __version__

HeaderValue = str | Secret
S = TypeVar("S")

# No compression: a small answer could grow without bound, and text streams gain little.
_DEFAULT_HEADERS: dict[str, tuple[str, HeaderValue]] = {
    "content-type": ("Content-Type", "application/json"),
    "accept": ("Accept", "application/json"),
    "accept-encoding": ("Accept-Encoding", "identity"),
    "user-agent": ("User-Agent", f"minillmlib/{__version__}"),
}


class PreparedRequest(msgspec.Struct, frozen=True):
    """A request with its decoded body, its credential and the report of what it says.

    `secrets` are redacted in what the server answers. `prefix` is what the next
    call of a long conversation need not encode again.
    """

    request: HttpRequest
    body: JsonObject
    auth: Auth
    secrets: tuple[Secret, ...]
    report: RequestReport
    prefix: EncodedPrefix | None


def build_http_request(
    call: Call, *, on_new_connection: bool = False, repeats: int = 0
) -> PreparedRequest:
    """Return the request for `call`, which was sent as often before.

    The body comes first: a parameter that cannot be sent is reported even without a credential.
    """
    generator = call.generator
    body, omitted, prefix = build_body(call)
    data = encode_json(body)
    auth = generator.credential.resolve()
    envelope = _envelope_of(call, auth)
    built = HttpRequest(
        url=envelope.url,
        headers=envelope.headers,
        body=data,
        on_new_connection=on_new_connection,
        proxy=generator.proxy,
        max_header_bytes=generator.limits.header_bytes,
        repeats=repeats,
    )
    request = _ask_provider("finalize the request", generator.provider.finalize, built, auth)
    secrets = envelope.secrets
    if request is not built:
        if not isinstance(request, HttpRequest):
            given = type(request).__name__
            raise InvalidParameterError(f"finalize must return an HttpRequest, not {given}")
        try:
            _check_address(request.url)
            if secrets:
                _check_destination(request.url, generator)
        except InvalidParameterError as error:  # finalize may have put the key into the address
            Redactor(*secrets, known=f"{generator.base_url} {generator.model}").redact_error(error)
            raise
    if isinstance(generator.proxy, Secret):
        secrets += secrets_of(generator.proxy)
    report = RequestReport(sent=_intern_keys(tuple(body)), omitted={**omitted, **call.omitted})
    return PreparedRequest(request, body, auth, secrets, report, prefix)


@lru_cache(maxsize=256)
def _intern_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first of equal tuples: thousands of answers then keep one."""
    return keys


class _Envelope(NamedTuple):
    """The parts that all requests of a generator share, as long as its credential is the same."""

    auth: Auth
    url: str
    headers: tuple[tuple[str, HeaderValue], ...]
    secrets: tuple[Secret, ...]


def _envelope_of(call: Call, auth: Auth) -> _Envelope:
    """Return the envelope of a request, kept on the generator, so that it ends with it."""
    generator = call.generator
    kept, name = vars(generator), "_stream_envelope" if call.stream else "_envelope"
    envelope: _Envelope | None = kept.get(name)
    if envelope is None or not (envelope.auth is auth or envelope.auth == auth):
        url, secrets = _url_of(call), secrets_for(generator, auth)
        envelope = _Envelope(auth, url, _merge_headers(call, auth), secrets)
        if secrets:
            _check_destination(url, generator)
        kept[name] = envelope
    return envelope


class RequestPreview(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it would be sent, without its secrets.

    Attributes:
        url: Its address.
        headers: Its headers; a secret value is "[hidden]". That of a credential which
            cannot be resolved is omitted.
        data: Its body.
        method: Its method.
    """

    url: str
    headers: dict[str, str]
    data: bytes
    method: str = "POST"

    @property
    def body(self) -> JsonObject:
        """The body, decoded."""
        body: JsonObject = msgspec.json.decode(self.data)
        return body


def preview_request(call: Call) -> RequestPreview:
    """Return what `call` would send."""
    generator = call.generator
    data = encode_json(build_body(call)[0])
    try:
        auth = generator.credential.resolve()
    except MiniLLMError:
        auth = Auth.none()
    headers = _merge_headers(call, auth)
    return RequestPreview(
        url=_url_of(call),
        headers={name: str(value) for name, value in headers},
        data=data,
    )


def _url_of(call: Call) -> str:
    generator = call.generator
    try:
        url = generator.provider.request_url(
            generator.base_url, generator.model, stream=call.stream
        )
    except MiniLLMError:
        raise
    except Exception as error:
        raise provider_error("name the address", error) from error
    _check_address(url)
    return url


def _check_address(url: object) -> None:
    """Refuse what a provider takes for an address and is none; it may be the caller's own."""
    try:
        is_address = isinstance(url, str) and bool(urlsplit(url).hostname)
    except ValueError:
        is_address = False
    if not is_address:
        shown = repr(url.partition("?")[0]) if isinstance(url, str) else type(url).__name__
        raise InvalidParameterError(
            f"the provider's address must look like https://host/path, not {excerpt(shown)}"
        )


def _ask_provider(task: str, method: Callable[[S, Auth], T], subject: S, auth: Auth) -> T:
    """Return what a provider that was given the secret returns; it may be the caller's own."""
    try:
        return method(subject, auth)
    except Exception as error:  # noqa: BLE001 - the provider may be the caller's own
        problem = f"the provider could not {task} ({type(error).__name__})"
    raise InvalidParameterError(problem)  # without a cause, whose text may be the secret


def build_cost_query(call: Call, url: str) -> HttpRequest:
    """Return the request that asks the generator's server what an earlier request cost."""
    return build_api_request(call, ApiRequest(url=url)).request


def build_api_request(call: Call, wanted: ApiRequest) -> PreparedRequest:
    """Return a request to the generator's server that is no completion, with its credential."""
    generator = call.generator
    auth = generator.credential.resolve()
    secrets = secrets_for(generator, auth)
    _check_address(wanted.url)
    if secrets:
        _check_destination(wanted.url, generator)
    headers = {name.lower(): (name, value) for name, value in _merge_headers(call, auth)}
    headers["content-type"] = ("Content-Type", wanted.content_type)
    headers["accept"] = ("Accept", wanted.accept)
    request = HttpRequest(
        url=wanted.url,
        headers=tuple(headers.values()),
        body=wanted.body,
        method=wanted.method,
        proxy=generator.proxy,
        max_header_bytes=generator.limits.header_bytes,
    )
    if isinstance(generator.proxy, Secret):
        secrets += secrets_of(generator.proxy)
    return PreparedRequest(request, {}, auth, secrets, RequestReport(sent=()), None)


BuiltBody = tuple[JsonObject, dict[str, str], EncodedPrefix | None]


def build_body(call: Call) -> BuiltBody:
    """Return the JSON body of `call`, what was omitted from it, and the prefix to keep."""
    try:
        built = None if call.prefix is None else _extend_prefix(call, call.prefix)
        return built or (_build(call, call.messages), _find_omitted(call, call.messages), None)
    except MiniLLMError:
        raise
    except Exception as error:
        raise provider_error("build the request", error) from error


def _build(call: Call, messages: tuple[Message, ...]) -> JsonObject:
    generator, params = call.generator, call.settings.params
    if params.extra:  # a provider may change what it is given, and an attempt may follow
        params = params.replace(extra=params.extra)
    body = generator.provider.build_request(
        generator.model,
        messages,
        params,
        stream=call.stream,
        include_usage=call.wants_usage,
    )
    if call.settings.force_prepend:
        return _add_prefix(call, body)
    if call.choices > 1:
        return generator.provider.capabilities.ask_choices(body, call.choices)
    return body


def _add_prefix(call: Call, body: JsonObject) -> JsonObject:
    """Return the body with the forced prefix at the end of its text, or marked as its last turn."""
    capabilities = call.generator.provider.capabilities
    key = capabilities.prompt_key
    if key is None:
        return capabilities.mark_prefill(call.generator.model, body)
    return {**body, key: body[key] + call.settings.force_prepend}


def _find_omitted(call: Call, messages: tuple[Message, ...]) -> dict[str, str]:
    """Return the parts that the provider omits, and reasoning that its wire does not take back."""
    model, provider = call.generator.model, call.generator.provider
    omitted = provider.capabilities.omitted(model, messages, call.settings.params)
    for message in messages:
        if message.reasoning is not None:
            return {**omitted, **omitted_reasoning(provider.dialect, messages)}
    return omitted


def _extend_prefix(call: Call, prefix: EncodedPrefix) -> BuiltBody | None:
    """Build the body of a long conversation by encoding only its new messages.

    Return None if the body must be built whole: unless each message is one item of the wire.
    """
    generator, messages = call.generator, call.messages
    key = generator.provider.capabilities.messages_key
    if key is None:
        return None
    head = messages[:1] if messages[0].role is SYSTEM else ()  # some wires have it elsewhere
    new = messages[prefix.count or len(head) :]
    if has_breakpoint((*head, *new)):  # only so many can be sent
        return None
    try:
        body = _build(call, (*head, *new))
    except Exception:  # noqa: BLE001 - alone they may be no conversation
        return None
    items = body.get(key)
    if not isinstance(items, list) or len(items) not in (len(new), len(head) + len(new)):
        return None
    omitted = {**prefix.omitted, **_find_omitted(call, new if prefix.count else messages)}
    encoded = []
    if prefix.count:
        items = items[-len(new) :]
        if items[0].get("role") == prefix.last_role:  # the wire might merge them
            return None
        encoded.append(prefix.data)
    count = len(items) - len(messages) + _count_settled(messages)
    if count > 0:
        encoded.append(encode_json(items[:count])[1:-1])
        prefix = EncodedPrefix(
            count=len(messages) - len(items) + count,
            data=b",".join(encoded),
            last_role=items[count - 1].get("role"),
            omitted=omitted,
            provider=generator.provider,
            model=model_key(generator),
        )
    rest = encode_json(items[max(count, 0) :])[1:-1]
    body[key] = msgspec.Raw(b"[%b]" % b",".join([*encoded, rest]))
    return body, omitted, prefix if prefix.count else None


def _count_settled(messages: tuple[Message, ...]) -> int:
    """Return the number of messages before the last turn; tool results stay with their calls."""
    count = len(messages) - 1
    while count > 0 and messages[count].role is TOOL:
        count -= 1
    return count


def _merge_headers(call: Call, auth: Auth) -> tuple[tuple[str, HeaderValue], ...]:
    """Return all headers; of two with one name the later wins, so the caller's own come last."""
    generator, capabilities = call.generator, call.generator.provider.capabilities
    merged = dict(_DEFAULT_HEADERS)
    if call.stream:
        merged["accept"] = ("Accept", capabilities.stream_accept)
    headers: list[tuple[str, HeaderValue]] = []
    if generator.app_url is not None and capabilities.app_url_header is not None:
        headers.append((capabilities.app_url_header, generator.app_url))
    if generator.app_title is not None and capabilities.app_title_header is not None:
        headers.append((capabilities.app_title_header, generator.app_title))
    headers += _ask_provider("name its headers", _auth_headers, generator.provider, auth)
    headers += generator.headers
    for name, value in headers:
        problem = header_problem(name, value)
        if problem is not None:
            raise InvalidParameterError(problem)
        key = name.lower()
        if key in capabilities.mergeable_headers and key in merged:
            value = _join(merged[key][1], value)  # noqa: PLW2901
        merged[key] = (name, value)
    return tuple(merged.values())


def _join(first: HeaderValue, second: HeaderValue) -> HeaderValue:
    """Return both values of a header as one list, which is secret if one of them is."""
    values = [one if isinstance(one, str) else one.expose_secret() for one in (first, second)]
    joined = ",".join(values)
    return joined if isinstance(first, str) and isinstance(second, str) else Secret(joined)


def _auth_headers(provider: Provider, auth: Auth) -> list[tuple[str, HeaderValue]]:
    """Return the provider's headers; a value that holds the credential stays a secret."""
    secret = auth.secret()
    text = secret and secret.expose_secret()
    headers = provider.auth_headers(auth)
    return [(name, Secret(value) if text and text in value else value) for name, value in headers]


def secrets_for(generator: GeneratorInfo, auth: Auth) -> tuple[Secret, ...]:
    """Return what goes to the generator's own server only."""
    values = (auth.secret(), *(value for _, value in generator.headers))
    return tuple([value for value in values if isinstance(value, Secret)])


def _check_destination(url: str, generator: GeneratorInfo) -> None:
    """Refuse to send a secret to another host, or over plain HTTP beyond loopback."""
    via, allows_http = generator.proxy, generator.allow_http
    if isinstance(via, Secret):
        via = show_proxy(via)  # the cache must not keep its password
    _check_target(url, generator.base_url, via, allows_http=allows_http)


@lru_cache(maxsize=64)
def _check_target(url: str, base_url: str, proxy: str | None, *, allows_http: bool) -> None:
    target, base = urlsplit(url), urlsplit(base_url)
    if (target.scheme, target.netloc) != (base.scheme, base.netloc):
        raise InvalidParameterError(
            f"the provider leads to {target.scheme}://{target.netloc}, but the credential is for "
            f"{base.scheme}://{base.netloc}; set base_url to the server that is meant"
        )
    hosts = [target.hostname]
    if proxy is not None and proxy != ENVIRONMENT:
        hosts.append(urlsplit(show_proxy(proxy)).hostname)
    if target.scheme != "https" and not allows_http and not all(map(is_loopback, hosts)):
        via = f" through {show_proxy(proxy)}" if len(hosts) > 1 else ""
        raise InvalidParameterError(
            f"the key would go to {target.netloc}{via} unencrypted; use https, or, if the network "
            "between is trusted, replace(allow_http=True)"
        )
