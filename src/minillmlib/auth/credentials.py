"""Sources of credentials, which are read when a request is built and never kept."""

import os
import time
from codecs import BOM_UTF8
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from minillmlib.auth.secret import Auth, Secret
from minillmlib.errors import AuthenticationError, InvalidParameterError
from minillmlib.files import read_small_file
from minillmlib.json_value import JsonValue

SUBSCRIPTION_VARIABLE = "ANTHROPIC_AUTH_TOKEN"
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


class EnvironmentKey(msgspec.Struct, frozen=True):
    """An API key in the first of some environment variables that is set.

    A blank variable counts as not set. If none is set, `fallback` provides the credential.
    """

    variables: tuple[str, ...]
    fallback: CredentialSource | None = None

    def resolve(self) -> Auth:
        """Return the key. Raises `AuthenticationError` with the variables if there is none."""
        for variable in self.variables:
            if os.environ.get(variable, "").strip():
                return Auth.api_key(Secret(os.environ[variable], f"the key in {variable}"))
        if self.fallback is not None:
            return self.fallback.resolve()
        raise AuthenticationError(
            f"no API key: set the environment variable {' or '.join(self.variables)}, or give "
            "the key with with_api_key(...); nothing was sent"
        )

    def with_fallback(self, fallback: CredentialSource) -> "EnvironmentKey":
        """Return a copy that uses `fallback` if none of its variables is set."""
        if isinstance(fallback, EnvironmentKey):  # one key, so that its error names all variables
            return EnvironmentKey((*self.variables, *fallback.variables), fallback.fallback)
        return EnvironmentKey(self.variables, fallback)

    def __repr__(self) -> str:
        return f"EnvironmentKey({', '.join(self.variables)})"


class ClaudeSubscriptionToken(msgspec.Struct, frozen=True):
    """The token of a Claude Pro or Max plan.

    From `ANTHROPIC_AUTH_TOKEN` if set, else from the file that Claude Code keeps fresh
    (`~/.claude/.credentials.json`, or below `CLAUDE_CONFIG_DIR`). The file is read at every
    request and never written.
    """

    def resolve(self) -> Auth:
        """Return the token. Raises `AuthenticationError` if there is none or it has expired."""
        if os.environ.get(SUBSCRIPTION_VARIABLE, "").strip():
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
        return float(expires_at or "inf") / 1000 < time.time()
    except (TypeError, ValueError, OverflowError):
        return False


def _no_token(reason: str) -> AuthenticationError:
    return AuthenticationError(
        f"no Claude subscription token: {SUBSCRIPTION_VARIABLE} is not set and {reason}; "
        "log in with Claude Code, or use an API key with GeneratorInfo.anthropic(model)"
    )
