"""What a setting of a proxy means, and which proxy the environment names, without a socket."""

from __future__ import annotations

import pytest

from minillmlib import InvalidParameterError, Secret
from minillmlib.transport.proxy import (
    check_proxy,
    expose_proxy,
    find_environment_proxy,
    is_loopback,
    parse_proxy,
    secrets_of,
    show_proxy,
)

SETTINGS = [
    # The setting, what is shown of it, what is connected, its header, and what is redacted.
    ("http://p.example:8080", "http://p.example:8080", "http://p.example:8080", {}, []),
    ("p.example:8080", "http://p.example:8080", "http://p.example:8080", {}, []),
    (" https://p.example/ ", "https://p.example", "https://p.example", {}, []),
    ("socks4://p.example:1", "socks4://p.example:1", "socks4://p.example:1", {}, []),
    ("socks4a://p.example:1", "socks4a://p.example:1", "socks4a://p.example:1", {}, []),
    ("socks5://p.example:1", "socks5://p.example:1", "socks5://p.example:1", {}, []),
    ("socks5h://[::1]:1", "socks5h://[::1]:1", "socks5h://[::1]:1", {}, []),
    ("http://me:secret@p.example:1", "http://p.example:1", "http://me:secret@p.example:1",
     {"Proxy-Authorization": "Basic bWU6c2VjcmV0"}, ["http://me:secret@p.example:1", "secret"]),
    ("me:a%40b%3Ac@p.example:1", "http://p.example:1", "http://me:a%40b%3Ac@p.example:1",
     {"Proxy-Authorization": "Basic bWU6YUBiOmM="}, ["me:a%40b%3Ac@p.example:1", "a@b:c"]),
    ("http://me@p.example:1", "http://p.example:1", "http://me@p.example:1",
     {"Proxy-Authorization": "Basic bWU6"}, ["http://me@p.example:1"]),
    ("http://m%65:@p.example:1", "http://p.example:1", "http://m%65:@p.example:1",
     {"Proxy-Authorization": "Basic bWU6"}, ["http://m%65:@p.example:1"]),
    ("http://a@b:c@p.example:1", "http://p.example:1", "http://a@b:c@p.example:1",
     {"Proxy-Authorization": "Basic YUBiOmM="}, ["http://a@b:c@p.example:1", "c"]),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "shown", "exposed", "header", "secrets"), SETTINGS)
def test_an_address_is_shown_without_its_password_and_used_with_it(
    setting, shown, exposed, header, secrets
):
    for given in (setting, Secret(setting)):
        checked = check_proxy(given)
        assert isinstance(checked, Secret) == (bool(secrets) or given is not setting)
        proxy = parse_proxy(checked)
        assert (proxy.url, proxy.scheme) == (shown, shown.partition(":")[0])
        assert (show_proxy(checked), expose_proxy(checked)) == (shown, exposed)
        assert proxy.expose_headers() == header
        if secrets:
            assert [secret.expose_secret() for secret in secrets_of(checked)] == secrets
            assert setting not in repr((checked, proxy))


def test_the_settings_that_are_no_address():
    assert (check_proxy(None), check_proxy("environment")) == (None, "environment")
    assert (show_proxy(None), show_proxy("environment")) == ("None", "environment")
    assert (secrets_of(None), secrets_of("environment"), secrets_of("http://p:1")) == ((), (), ())


@pytest.mark.parametrize(
    "setting",
    ["", " ", "http://", "http://:8080", "p.example:0", "p.example:65536", "p.example:port",
     "ftp://p.example", "http://p.example/path", "http://p.example?a", "http://p.example#a",
     "http://p exa.example", "http://pé.example", "http://[::1", 5, b"http://p.example",
     Secret("ftp://me:secret@p.example"), "ftp://me:secret@p.example"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_examples(setting):
    with pytest.raises(InvalidParameterError) as caught:
        check_proxy(setting)
    assert str(caught.value) == (
        "a proxy must look like http://host:port or http://user:password@host:port (a special "
        'character in the password as %XX); None is no proxy, and "environment" the one that '
        "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names"
    )


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("127.0.0.1", True), ("127.255.1.20", True), ("::1", True), ("localhost", True),
     ("a.localhost", True), ("a.b.localhost", True), ("128.0.0.1", False), ("127.0.0", False),
     ("127.0.0.1.example", False), ("1127.0.0.1", False), ("127.0.0.1234", False), ("::2", False),
     ("localhost.example", False), ("mylocalhost", False), ("", False), (None, False)],
)  # fmt: skip
def test_the_names_of_this_machine(host, is_here):
    assert is_loopback(host) is is_here


HTTP, HTTPS = "http://x.example/v1", "https://x.example/v1"
P, Q = "http://p.example:1", "http://q.example:2"
FOUND = [
    # The environment, the address that is asked, and the proxy that is taken.
    ({}, HTTPS, None),
    ({"HTTPS_PROXY": P}, HTTPS, P),
    ({"https_proxy": P}, HTTPS, P),
    ({"https_proxy": P, "HTTPS_PROXY": Q}, HTTPS, P),
    ({"HTTPS_PROXY": P}, HTTP, None),
    ({"HTTP_PROXY": P}, HTTP, P),
    ({"http_proxy": P}, HTTP, P),
    ({"HTTP_PROXY": P}, HTTPS, None),
    ({"ALL_PROXY": P}, HTTP, P),
    ({"all_proxy": P}, HTTPS, P),
    ({"ALL_PROXY": P, "HTTPS_PROXY": Q}, HTTPS, Q),
    ({"ALL_PROXY": P, "HTTPS_PROXY": ""}, HTTPS, P),
    ({"FTP_PROXY": P}, HTTPS, None),
    ({"HTTPS_PROXY": "p.example:1"}, HTTPS, P),
    ({"HTTPS_PROXY": P, "NO_PROXY": "x.example"}, HTTPS, None),
    ({"HTTPS_PROXY": P, "NO_PROXY": "y.example, x.example:443"}, HTTPS, None),
    ({"HTTP_PROXY": P, "NO_PROXY": "x.example:80"}, HTTP, None),
    ({"HTTPS_PROXY": P, "NO_PROXY": "x.example:80"}, HTTPS, P),
    ({"HTTP_PROXY": P, "NO_PROXY": "x.example:443"}, HTTP, P),
    ({"HTTP_PROXY": P, "NO_PROXY": "x.example:8080"}, "http://x.example:8080/v1", None),
    ({"HTTP_PROXY": P, "NO_PROXY": "x.example:80"}, "http://x.example:8080/v1", P),
    ({"HTTPS_PROXY": P, "NO_PROXY": ".example"}, HTTPS, None),
    ({"HTTPS_PROXY": P, "NO_PROXY": "*"}, HTTPS, None),
    ({"HTTPS_PROXY": P, "NO_PROXY": "ample"}, HTTPS, P),
    ({"HTTP_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3/v1", None),
    ({"HTTP_PROXY": P, "NO_PROXY": "a, 10.1.0.9/16 ,b"}, "http://10.1.2.3:99/v1", None),
    ({"HTTP_PROXY": P, "NO_PROXY": "10.2.0.0/16"}, "http://10.1.2.3/v1", P),
    ({"HTTP_PROXY": P, "NO_PROXY": "a/b,300.0.0.0/8,10.0.0.0/8"}, "http://10.1.2.3/v1", None),
    ({"HTTP_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, HTTP, P),
    ({"HTTP_PROXY": P, "NO_PROXY": "fd00::/8"}, "http://[fd00::1]/v1", None),
    ({"HTTP_PROXY": P}, "http://localhost:8080/v1", None),
    ({"HTTP_PROXY": P}, "http://127.0.0.1/v1", None),
    ({"HTTP_PROXY": "http://localhost:3128"}, "http://127.0.0.1/v1", "http://localhost:3128"),
    ({"HTTP_PROXY": "http://localhost:3128"}, HTTP, "http://localhost:3128"),
    ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, HTTP, None),
]


@pytest.fixture
def environment(monkeypatch):
    for scheme in ("http", "https", "all", "no", "ftp"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize(("variables", "url", "proxy"), FOUND)
def test_the_environment_names_a_proxy(environment, variables, url, proxy):
    for name, value in variables.items():
        environment(name, value)
    found = find_environment_proxy(url)
    assert (found and found.url) == proxy


def test_the_environment_may_hold_a_password(environment):
    environment("HTTPS_PROXY", "http://me:secret@p.example:1")
    found = find_environment_proxy(HTTPS)
    assert (found.url, found.expose_headers()) == (
        P,
        {"Proxy-Authorization": "Basic bWU6c2VjcmV0"},
    )


@pytest.mark.parametrize(("url", "name"), [(HTTP, "HTTP_PROXY"), (HTTPS, "HTTPS_PROXY")])
@pytest.mark.parametrize("value", ["ftp://p.example", "environment", "http://me:secret@p e"])
def test_an_environment_without_sense_names_its_variable(environment, url, name, value):
    environment(name, value)
    with pytest.raises(InvalidParameterError) as caught:
        find_environment_proxy(url)
    assert str(caught.value) == (
        f"{name} or ALL_PROXY of the environment is not the address of a proxy; it must look like "
        "http://host:port, or with_proxy(None) goes without"
    )
