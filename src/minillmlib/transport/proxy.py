"""Proxies: the choice of one for a request, and the header that it demands."""

import base64
import ipaddress
import os
import re
import sys
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from minillmlib.auth.secret import Secret
from minillmlib.errors import InvalidParameterError

ENVIRONMENT = "environment"  # the proxy that the environment or the system names, if any

# An address, secret if it holds a password; "environment"; or None for no proxy at all.
ProxySetting: TypeAlias = str | Secret | None

LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}|::1|(?:.*\.)?localhost")
AUTHORIZATION = "Proxy-Authorization"


class Proxy(NamedTuple):
    """A proxy: its address without a password, and the header that it demands."""

    url: str
    authorization: Secret | None = None

    @property
    def scheme(self) -> str:
        """The protocol that is spoken with it."""
        return urlsplit(self.url).scheme

    def expose_headers(self) -> dict[str, str]:
        """Return the header that identifies the caller to the proxy, in plain text."""
        secret = self.authorization
        return {} if secret is None else {AUTHORIZATION: secret.expose_secret()}


def check_proxy(proxy: object) -> ProxySetting:
    """Return the setting of a generator, as a `Secret` if it holds a user name or password.

    An error never shows one.
    """
    if proxy is None or proxy == ENVIRONMENT:
        return None if proxy is None else ENVIRONMENT
    text = proxy.expose_secret() if isinstance(proxy, Secret) else proxy
    parts = _split(text) if isinstance(text, str) else None
    if parts is None:
        del proxy, text  # they may hold a password, and tracebacks show local variables
        raise InvalidParameterError(
            "a proxy must look like http://host:port or http://user:password@host:port "
            "(a special character in the password as %XX); None is no proxy, and "
            f'"{ENVIRONMENT}" the one that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names'
        )
    if isinstance(proxy, Secret):
        return proxy
    return Secret(str(text), "the proxy") if "@" in parts.netloc else str(text)


def parse_proxy(proxy: str | Secret) -> Proxy:
    """Return the proxy of a setting that was checked."""
    scheme, _, netloc = expose_proxy(proxy).partition("://")
    user, at, host = netloc.rpartition("@")
    name, _, password = user.partition(":")
    url = f"{scheme}://{host}"
    if not at:
        return Proxy(url)
    login = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return Proxy(url, Secret(f"Basic {login}"))


def expose_proxy(proxy: str | Secret) -> str:
    """Return the address of a checked setting with its password, for the moment of connecting."""
    parts = _split(proxy.expose_secret() if isinstance(proxy, Secret) else proxy)
    assert parts is not None
    return f"{parts.scheme}://{parts.netloc}"


def show_proxy(proxy: ProxySetting) -> str:
    """Return a setting as text, without its password."""
    return str(proxy) if proxy is None or proxy == ENVIRONMENT else parse_proxy(proxy).url


def secrets_of(proxy: ProxySetting) -> tuple[Secret, ...]:
    """Return the secrets of a setting that must be redacted in answers."""
    if not isinstance(proxy, Secret):
        return ()
    parts = _split(proxy.expose_secret())
    password = unquote(parts.password or "") if parts is not None else ""
    return (proxy, Secret(password)) if password.strip() else (proxy,)


def is_loopback(host: str | None) -> bool:
    """Whether the name or address of a host means this machine."""
    return LOOPBACK.fullmatch(host or "") is not None


def _split(text: str) -> SplitResult | None:
    """Return the parts of a proxy's address, or None if it is none.

    Without a scheme it is http, as for other programs.
    """
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        is_address = bool(parts.hostname) and parts.port != 0 and text.isascii() and " " not in text
    except ValueError:
        return None
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    return parts if is_address and is_bare and parts.scheme in _SCHEMES else None


_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def find_environment_proxy(url: str) -> Proxy | None:
    """Return the proxy that the environment, or else the system, names for `url`.

    Reads the environment each time, so that a change counts at once. Raises
    `InvalidParameterError` for a value that is not an address.
    """
    # The mapping within os.environ, which itself takes a microsecond for each name: together a
    # hundredth of a call, to find that there is none.
    variables = getattr(os.environ, "_data", None)
    is_named = variables is None or not variables.keys().isdisjoint(_NAMES)
    del variables  # they may hold keys, and tracebacks show local variables
    if is_named:
        return _find(url)
    return _find_system_proxy(url) if _HAS_SYSTEM_PROXIES else None


_NAMES = frozenset(
    os.environ.encodekey(name)
    for scheme in ("http", "https", "all")
    for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper())
)
_HAS_SYSTEM_PROXIES = sys.platform in ("win32", "darwin")


def _find(url: str) -> Proxy | None:
    # urllib has the rules of all Python programs: names in lower case first, no HTTP_PROXY in CGI
    # scripts (where a client's header sets it), the system's settings if no name is set.
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - slow; aiohttp imports it

    proxies, target = getproxies(), urlsplit(url)
    text = proxies.get(target.scheme) or proxies.get("all")
    host = target.hostname or ""
    if not text:
        return None
    port = target.port or (443 if target.scheme == "https" else 80)
    if proxy_bypass(f"{host}:{port}") or proxy_bypass(host) or _is_exempt(host, proxies):
        return None
    try:
        setting = check_proxy(text)
    except InvalidParameterError:
        setting = None
    if setting is None or setting == ENVIRONMENT:
        del proxies, text  # it may hold a password, and tracebacks show local variables
        raise InvalidParameterError(
            f"{target.scheme.upper()}_PROXY or ALL_PROXY of the environment is not the address of "
            "a proxy; it must look like http://host:port, or with_proxy(None) goes without"
        )
    proxy = parse_proxy(setting)
    # No proxy elsewhere can reach this machine by such a name, and it would learn the key.
    is_useless = is_loopback(host) and not is_loopback(urlsplit(proxy.url).hostname)
    return None if is_useless else proxy


_find_system_proxy = lru_cache(maxsize=256)(_find)


def _is_exempt(host: str, proxies: dict[str, str]) -> bool:
    """Whether NO_PROXY names a network of `host`, which urllib does not check."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in proxies.get("no", "").split(","):
        try:
            if "/" in entry and address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:  # a name, which is compared elsewhere
            continue
    return False
