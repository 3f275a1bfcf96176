"""Where a credential comes from. It is read when a request is built, and never kept."""

import os
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from minillmlib.auth.secret import Auth, Secret
from minillmlib.errors import AuthenticationError, InvalidParameterError
from minillmlib.files import read_small_file
from minillmlib.json_value import JsonValue

__all__ = [
    "ClaudeSubscriptionToken",
    "CredentialSource",
    "EnvironmentKey",
    "FixedCredential",
]

SUBSCRIPTION_VARIABLE = "ANTHROPIC_AUTH_TOKEN"
CREDENTIAL_FILE_BYTES = 1_000_000


@runtime_checkable
class CredentialSource(Protocol):
    """Gives the proof for a request at the moment the request is built."""

    def resolve(self) -> Auth:
        """The proof. Raises `AuthenticationError` when there is none; nothing was sent then."""
        ...


class FixedCredential(msgspec.Struct, frozen=True):
    """A credential given in the program. It refuses to be pickled with its generator."""

    auth: Auth

    def resolve(self) -> Auth:
        """The credential as given."""
        return self.auth

    def __repr__(self) -> str:
        return repr(self.auth)


class EnvironmentKey(msgspec.Struct, frozen=True):
    """An API key in the first of some environment variables that is set.

    Without any, what `otherwise` gives; a blank variable counts as not set.
    """

    variables: tuple[str, ...]
    otherwise: CredentialSource | None = None

    def resolve(self) -> Auth:
        """The key. `AuthenticationError` names the variables if there is none."""
        for variable in self.variables:
            if os.environ.get(variable, "").strip():
                return Auth.api_key(Secret(os.environ[variable], f"the key in {variable}"))
        if self.otherwise is not None:
            return self.otherwise.resolve()
        raise AuthenticationError(
            f"no API key: set the environment variable {' or '.join(self.variables)}, or give "
            "the key with with_api_key(...); nothing was sent"
        )

    def before(self, variable: str) -> "EnvironmentKey":
        """The same, with one more variable to look at first."""
        return EnvironmentKey((variable, *self.variables), self.otherwise)

    def __repr__(self) -> str:
        return f"EnvironmentKey({', '.join(self.variables)})"


class ClaudeSubscriptionToken(msgspec.Struct, frozen=True):
    """The token of a Claude Pro or Max plan.

    From `ANTHROPIC_AUTH_TOKEN` if set, else from the file that Claude Code keeps fresh
    (`~/.claude/.credentials.json`, or below `CLAUDE_CONFIG_DIR`). The file is read at every
    request and never written.
    """

    def resolve(self) -> Auth:
        """The token; `AuthenticationError` if there is none or it has expired."""
        if os.environ.get(SUBSCRIPTION_VARIABLE, "").strip():
            what = f"the token in {SUBSCRIPTION_VARIABLE}"
            return Auth.bearer_token(Secret(os.environ[SUBSCRIPTION_VARIABLE], what))
        return Auth.bearer_token(_token_in_file(_credential_path()))


def _credential_path() -> Path:
    folder = os.environ.get("CLAUDE_CONFIG_DIR")
    try:
        return (Path(folder) if folder else Path.home() / ".claude") / ".credentials.json"
    except RuntimeError:
        raise _no_token("the home folder is not known") from None


def _token_in_file(path: Path) -> Secret:
    """The token. Every reason against it is told after what was read has been forgotten."""
    login: JsonValue = None
    try:
        match _decoded(path):
            case {"claudeAiOauth": {"accessToken": str()} as login}:
                if not _has_expired(login.get("expiresAt")):
                    return Secret(login["accessToken"], f"the token in {path}")
                reason = f"the token in {path} has expired; open Claude Code once to renew it"
            case {"claudeAiOauth": _}:
                reason = f"the login in {path} has no accessToken"
            case _:
                reason = f"{path} holds no claudeAiOauth, so nobody is logged in"
    except InvalidParameterError as error:
        reason = str(error)
    del login
    raise _no_token(reason)


def _decoded(path: Path) -> JsonValue:
    try:
        return msgspec.json.decode(_read(path))
    except (ValueError, RecursionError):
        raise _no_token(f"{path} is not JSON, or only a part of it") from None


def _read(path: Path) -> bytes:
    try:
        return read_small_file(path, CREDENTIAL_FILE_BYTES)
    except OSError as error:
        raise _no_token(f"{path} cannot be read ({error.strerror or error})") from None


def _has_expired(expires_at: JsonValue) -> bool:
    """Whether a time in milliseconds has passed. The file holds null or text at times."""
    try:
        return float(expires_at or "inf") / 1000 < time.time()
    except (TypeError, ValueError, OverflowError):
        return False


def _no_token(reason: str) -> AuthenticationError:
    return AuthenticationError(
        f"no Claude subscription token: {SUBSCRIPTION_VARIABLE} is not set and {reason}; "
        "log in with Claude Code, or use an API key with GeneratorInfo.anthropic(model)"
    )
