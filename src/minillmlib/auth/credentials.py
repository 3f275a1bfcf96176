"""Sources of credentials, which are read whenever a request is built.

What is kept of one is in memory only: the headers of a generator's last requests hold it.
"""

from __future__ import annotations

import os
import time
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, TypeAlias, runtime_checkable

import msgspec

from minillmlib.auth.secret import Auth, Secret
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import AuthenticationError, InvalidParameterError
from minillmlib.files import read_small_file
from minillmlib.json_value import JsonValue

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

TokenProvider: TypeAlias = Callable[[], object]

SUBSCRIPTION_VARIABLE = "ANTHROPIC_AUTH_TOKEN"
AZURE_VARIABLES = ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY")
EXPIRY_MARGIN_SECS = 300.0  # as azure-core renews its own
CREDENTIAL_FILE_BYTES = 1_000_000


@runtime_checkable
class CredentialSource(Protocol):
    """Provides the credential for a request when the request is built."""

    def resolve(self) -> Auth:
        """Return the credential. Raises `AuthenticationError` if there is none."""


class FixedCredential(msgspec.Struct, frozen=True):
    """A credential given in the program. It refuses to be pickled with its generator."""

    auth: Auth

    def resolve(self) -> Auth:
        return self.auth

    def __repr__(self) -> str:
        return repr(self.auth)


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


_stand_in: Auth | None = None


def set_stand_in(auth: Auth | None) -> Auth | None:
    """Use `auth` where no environment variable has a key, for tests; return the previous one."""
    global _stand_in
    previous, _stand_in = _stand_in, auth
    return previous


def _stand_in_for(problem: str) -> Auth:
    if _stand_in is None:
        raise AuthenticationError(problem)
    return _stand_in


class EnvironmentKey(msgspec.Struct, frozen=True):
    """An API key in the first of some environment variables that is set.

    A blank variable counts as not set. If none is set, `fallback` provides the credential.
    """

    variables: tuple[str, ...]
    fallback: CredentialSource | None = None

    def resolve(self) -> Auth:
        """Return the key. Raises `AuthenticationError` with the variables if there is none."""
        for variable in self.variables:
            if _is_set(variable):
                return Auth.api_key(Secret(os.environ[variable], f"the key in {variable}"))
        if self.fallback is not None:
            return self.fallback.resolve()
        return _stand_in_for(
            f"no API key: set the environment variable {' or '.join(self.variables)}, or give "
            "the key with with_api_key(...); nothing was sent"
        )

    @property
    def is_set(self) -> bool:
        """Whether one of the variables holds a key."""
        return any(map(_is_set, self.variables))

    def with_fallback(self, fallback: CredentialSource) -> EnvironmentKey:
        """Return a copy that uses `fallback` if none of its variables is set."""
        if isinstance(fallback, EnvironmentKey):  # one key, so that its error names all variables
            return EnvironmentKey((*self.variables, *fallback.variables), fallback.fallback)
        return EnvironmentKey(self.variables, fallback)

    def __repr__(self) -> str:
        return f"EnvironmentKey({', '.join(self.variables)})"


class AzureCredential(msgspec.Struct, frozen=True):
    """The Entra token in `AZURE_OPENAI_AD_TOKEN`, else the key in `AZURE_OPENAI_API_KEY`.

    In the order of the package openai.
    """

    def resolve(self) -> Auth:
        """Return the token or the key. Raises `AuthenticationError` if there is neither."""
        for variable, make in zip(AZURE_VARIABLES, (Auth.bearer_token, Auth.api_key), strict=True):
            if _is_set(variable):
                return make(Secret(os.environ[variable], f"the secret in {variable}"))
        return _stand_in_for(
            f"no credential for Azure: set {AZURE_VARIABLES[1]} to a key of the resource or "
            f"{AZURE_VARIABLES[0]} to a token of Entra, or give the key with with_api_key(...); "
            "nothing was sent"
        )


class TokenCredential:
    """A token that a function of the caller's gets, such as one of azure-identity.

    The function may be async; one that is not runs in a thread. It returns the token, or a value
    with a `token` and the time at which it ends, in seconds, as `expires_on`; that one is used
    until it is about to end. A text is asked for again at each request. Requests of one event loop
    that need a token at the same time wait for the same call.
    """

    __slots__ = ("_auth", "_expires_at", "_get_token", "_renewals")

    def __init__(self, get_token: TokenProvider) -> None:
        self._get_token = get_token
        self._auth: Auth | None = None
        self._expires_at = 0.0
        self._renewals: dict[AbstractEventLoop, Task[_Failure | None]] = {}

    def resolve(self) -> Auth:
        """Return the last token. Raises `AuthenticationError` before the first one."""
        if self._auth is None:
            raise AuthenticationError(f"no token was asked for yet; {_NEXT_STEP}")
        return self._auth

    async def renew(self, refused: Auth | None = None) -> None:
        """Get a token unless the last one is still good. `refused` is one that a server refused.

        Raises `AuthenticationError`, with the function's own error as its cause.
        """
        has_ended = self._expires_at - EXPIRY_MARGIN_SECS <= time.time()
        if not has_ended and (refused is None or refused != self._auth):
            return
        asyncio = asyncio_module()
        loop = asyncio.get_running_loop()
        task = self._renewals.get(loop)
        if task is None:
            for other in [each for each in self._renewals if each.is_closed()]:
                self._renewals.pop(other, None)
            task = self._renewals[loop] = loop.create_task(self._get())
            task.add_done_callback(lambda _: self._renewals.pop(loop, None))
        failure = await asyncio.shield(task)  # the others still wait when one call is cancelled
        if failure is not None:  # each call has an error of its own
            raise AuthenticationError(f"{failure.problem}; {_NEXT_STEP}") from failure.cause

    async def _get(self) -> _Failure | None:
        try:
            token: JsonValue = await _call(self._get_token)
        except Exception as error:  # noqa: BLE001 - the function is the caller's own
            return _Failure(f"the token provider failed ({type(error).__name__})", error)
        text, expires_at = getattr(token, "token", token), getattr(token, "expires_on", 0)
        if not isinstance(text, str):
            return _Failure(f"the token provider returned {type(text).__name__}, not a token")
        try:
            self._auth = Auth.bearer_token(Secret(text, "the token of the token provider"))
        except InvalidParameterError as error:
            return _Failure(str(error))
        is_known = isinstance(expires_at, int | float)
        self._expires_at = float(expires_at) if is_known else 0.0
        return None

    def __repr__(self) -> str:
        return "TokenCredential()"  # a partial function would show its arguments

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a token provider cannot be pickled or copied, since it may hold a secret; "
            "call with_token_provider(...) in the other process"
        )


class _Failure(NamedTuple):
    """Why there is no token."""

    problem: str
    cause: Exception | None = None


_NEXT_STEP = "call the function that was given to with_token_provider to see why; nothing was sent"


def token_credential(source: CredentialSource) -> TokenCredential | None:
    """Return the token that a source has to renew before it resolves, or None for no token."""
    while isinstance(source, EnvironmentKey) and source.fallback is not None:
        if source.is_set:
            return None
        source = source.fallback
    return source if isinstance(source, TokenCredential) else None


async def _call(get_token: TokenProvider) -> JsonValue:
    """Return the token, without blocking the event loop."""
    from inspect import isawaitable, iscoroutinefunction  # noqa: PLC0415 - slow to import

    is_async = iscoroutinefunction(get_token) or iscoroutinefunction(type(get_token).__call__)
    got = get_token() if is_async else await asyncio_module().to_thread(get_token)
    return await got if isawaitable(got) else got


class ClaudeSubscriptionToken(msgspec.Struct, frozen=True):
    """The token of a Claude Pro or Max plan.

    From `ANTHROPIC_AUTH_TOKEN` if set, else from the file that Claude Code keeps fresh
    (`~/.claude/.credentials.json`, or below `CLAUDE_CONFIG_DIR`). The file is read at every
    request and never written.
    """

    def resolve(self) -> Auth:
        """Return the token. Raises `AuthenticationError` if there is none or it has expired."""
        if _is_set(SUBSCRIPTION_VARIABLE):
            what = f"the token in {SUBSCRIPTION_VARIABLE}"
            return Auth.bearer_token(Secret(os.environ[SUBSCRIPTION_VARIABLE], what))
        token = _read_token(_credential_path())
        if isinstance(token, str):
            raise _no_token(token)
        return Auth.bearer_token(token)


def _credential_path() -> Path:
    folder = os.environ.get("CLAUDE_CONFIG_DIR")
    try:
        return (Path(folder) if folder else Path.home() / ".claude") / ".credentials.json"
    except RecursionError:  # a RuntimeError, too
        raise
    except RuntimeError:
        raise _no_token("the home folder is unknown") from None


def _read_token(path: Path) -> Secret | str:
    """Return the token in the file, or the reason why it has none, which shows nothing of it."""
    match _decode(path):
        case {"claudeAiOauth": {"accessToken": str() as token} as login}:
            if _has_expired(login.get("expiresAt")):
                return f"the token in {path} has expired; open Claude Code once to renew it"
            try:
                return Secret(token, f"the token in {path}")
            except InvalidParameterError as error:
                return str(error)
        case {"claudeAiOauth": _}:
            return f"the login in {path} has no accessToken"
    return f"{path} holds no claudeAiOauth, so nobody is logged in"


def _decode(path: Path) -> JsonValue:
    try:
        # In one expression: tracebacks show local variables.
        return msgspec.json.decode(
            read_small_file(path, CREDENTIAL_FILE_BYTES).removeprefix(BOM_UTF8)
        )
    except OSError as error:
        raise _no_token(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        pass  # raised below, without a context: a UnicodeDecodeError holds what it decodes
    raise _no_token(f"{path} is not JSON, or only a part of it")


def _has_expired(expires_at: JsonValue) -> bool:
    """Whether a time in milliseconds has passed. The file may hold null or text."""
    try:
        return bool(expires_at) and float(expires_at) / 1000 < time.time()
    except (TypeError, ValueError, OverflowError):
        return False


def _no_token(reason: str) -> AuthenticationError:
    return AuthenticationError(
        f"no Claude subscription token: {SUBSCRIPTION_VARIABLE} is not set and {reason}; "
        "log in with Claude Code, or use an API key with GeneratorInfo.anthropic(model)"
    )
