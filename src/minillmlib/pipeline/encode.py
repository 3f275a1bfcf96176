"""A call becomes an HTTP request."""

from __future__ import annotations

from minillmlib.pipeline.plan import Call
from minillmlib.transport.contract import HttpRequest
from minillmlib.values.auth import Auth, check_header_name, check_header_text
from minillmlib.values.json import encode_json
from minillmlib.version import __version__

__all__ = ["encode"]


def encode(call: Call, auth: Auth) -> HttpRequest:
    """The request for `call`. The caller's own headers come last and win."""
    generator = call.generator
    body = generator.provider.build_request(
        generator.model,
        call.messages,
        call.settings.params,
        stream=call.stream,
        include_usage=True,
    )
    headers = [
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream" if call.stream else "application/json"),
        # No compression: a small answer could grow without bound, and text streams gain little.
        ("Accept-Encoding", "identity"),
        ("User-Agent", f"minillmlib/{__version__}"),
        *generator.provider.auth_headers(auth),
        *generator.headers,
    ]
    return HttpRequest(
        url=generator.provider.endpoint_url(generator.base_url),
        headers=_last_of_each_name(headers),
        body=encode_json(body),
    )


def _last_of_each_name(headers: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    chosen = {
        check_header_name(name).lower(): (name, check_header_text(value, f"the header {name}"))
        for name, value in headers
    }
    return tuple(chosen.values())
