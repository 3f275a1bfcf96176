"""Where a credential comes from. It is read when a request is built, and never kept."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Protocol

import msgspec

from minillmlib.errors import AuthenticationError, InvalidParameterError
from minillmlib.values.auth import Auth, Secret

__all__ = [
    "ClaudeSubscriptionToken",
    "CredentialSource",
    "EnvironmentKey",
    "FixedCredential",
]

SUBSCRIPTION_VARIABLE = "ANTHROPIC_AUTH_TOKEN"
CREDENTIAL_FILE_BYTES = 1_000_000


class CredentialSource(Protocol):
    """Gives the proof for a request at the moment the request is built."""

    def resolve(self, tried: tuple[str, ...] = ()) -> Auth:
        """The proof. `tried` names the variables that were looked up in vain before.

        Raises `AuthenticationError` when there is none; nothing has been sent then.
        """
        ...


class FixedCredential:
    """A credential given in the program. It refuses to be pickled with its generator."""

    __slots__ = ("auth",)

    def __init__(self, auth: Auth) -> None:
        self.auth = auth

    def resolve(self, tried: tuple[str, ...] = ()) -> Auth:
        """The credential as given."""
        del tried
        return self.auth

    def __repr__(self) -> str:
        return repr(self.auth)


class EnvironmentKey:
    """An API key in an environment variable; without it, what `otherwise` gives."""

    __slots__ = ("otherwise", "variable")

    def __init__(self, variable: str, otherwise: CredentialSource | None = None) -> None:
        self.variable = variable
        self.otherwise = otherwise

    def resolve(self, tried: tuple[str, ...] = ()) -> Auth:
        """The key of the variable. A blank variable counts as not set."""
        key = os.environ.get(self.variable, "")
        if key.strip():
            return Auth.api_key(Secret(key, f"the key in {self.variable}"))
        tried = (*tried, self.variable)
        if self.otherwise is not None:
            return self.otherwise.resolve(tried)
        names = " or ".join(dict.fromkeys(tried))
        raise AuthenticationError(
            f"no API key: set the environment variable {names}, or give the key with "
            "with_api_key(...); nothing was sent"
        )

    def __repr__(self) -> str:
        return f"EnvironmentKey({self.variable})"


class ClaudeSubscriptionToken:
    """The token of a Claude Pro or Max plan.

    From `ANTHROPIC_AUTH_TOKEN` if set, else from the file that Claude Code keeps fresh
    (`~/.claude/.credentials.json`, or below `CLAUDE_CONFIG_DIR`). The file is read at every
    request and never written.
    """

    __slots__ = ()

    def resolve(self, tried: tuple[str, ...] = ()) -> Auth:
        """The token; `AuthenticationError` if there is none or it has expired."""
        del tried
        token = os.environ.get(SUBSCRIPTION_VARIABLE, "")
        if token.strip():
            return Auth.bearer_token(Secret(token, f"the token in {SUBSCRIPTION_VARIABLE}"))
        return Auth.bearer_token(_token_in_file(_credential_path()))

    def __repr__(self) -> str:
        return "ClaudeSubscriptionToken()"


class _OAuth(msgspec.Struct):
    accessToken: str  # noqa: N815 - the file's own names
    expiresAt: int | float | str | None = None  # noqa: N815


class _CredentialFile(msgspec.Struct):
    claudeAiOauth: _OAuth  # noqa: N815


def _credential_path() -> Path:
    folder = os.environ.get("CLAUDE_CONFIG_DIR")
    return (Path(folder) if folder else Path.home() / ".claude") / ".credentials.json"


def _token_in_file(path: Path) -> Secret:
    try:
        content = _read_small_file(path)
        login = msgspec.json.decode(content, type=_CredentialFile).claudeAiOauth
        token = Secret(login.accessToken, f"the token in {path}")
    except OSError as error:
        raise _no_token(f"{path} cannot be read ({error.strerror or error})") from None
    except (msgspec.MsgspecError, ValueError, RecursionError, InvalidParameterError):
        raise _no_token(f"{path} holds no usable claudeAiOauth.accessToken") from None
    if _has_expired(login.expiresAt):
        raise _no_token(f"the token in {path} has expired; open Claude Code once to renew it")
    return token


def _read_small_file(path: Path) -> bytes:
    # O_NONBLOCK, so that a pipe in the file's place cannot hold us up.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is not a regular file")
        if facts.st_size > CREDENTIAL_FILE_BYTES:
            raise OSError("it is too large")
        return file.read(CREDENTIAL_FILE_BYTES)


def _has_expired(expires_at: float | str | None) -> bool:
    """Whether a time in milliseconds has passed. The file holds null or text at times."""
    try:
        return float(expires_at or "inf") / 1000 < time.time()
    except ValueError:
        return False


def _no_token(reason: str) -> AuthenticationError:
    return AuthenticationError(
        f"no Claude subscription token: {SUBSCRIPTION_VARIABLE} is not set and {reason}; "
        "log in with Claude Code, or use an API key with GeneratorInfo.anthropic(model)"
    )
