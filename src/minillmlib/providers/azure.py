"""OpenAI's models at Azure: other addresses, and the model is a deployment."""

import re
from urllib.parse import quote

import msgspec

from minillmlib.auth.secret import Auth, AuthKind
from minillmlib.errors import InvalidParameterError
from minillmlib.providers.openai import OpenAiProvider

# The version of the API that a deployment has in its address; any other one, such as `preview`,
# is for the v1 address.
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(?:-\w+)?")


class AzureProvider(OpenAiProvider):
    """Azure OpenAI, whose v1 addresses are OpenAI's, and whose dated ones name the deployment.

    Args:
        api_version: The version of the API: a date for addresses with the deployment in them;
            None, or a word such as `preview`, for the v1 address.
    """

    dialect = msgspec.structs.replace(OpenAiProvider.dialect, name="Azure OpenAI")
    capabilities = OpenAiProvider.capabilities.replace(is_generic=True)

    def __init__(self, api_version: str | None = None) -> None:
        if api_version is not None and not re.fullmatch(r"[\w.-]+", api_version, re.ASCII):
            raise InvalidParameterError(
                f"an api_version is a date or a word, such as 2024-10-21, not {api_version!r}"
            )
        self.api_version = api_version

    @property
    def is_dated(self) -> bool:
        """Whether the addresses have the deployment in them."""
        return self.api_version is not None and _DATED.fullmatch(self.api_version) is not None

    def request_url(self, base: str, model: str, *, stream: bool) -> str:
        """Return the address of a deployment, with the version if there is one."""
        if self.is_dated:
            base = f"{base.rstrip('/')}/deployments/{quote(model, safe='')}"
        url = super().request_url(base, model, stream=stream)
        return url if self.api_version is None else f"{url}?api-version={self.api_version}"

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """Return `api-key` for a key, and `Authorization` for a token of Entra; never both."""
        secret = auth.secret()
        if secret is not None and auth.kind is AuthKind.API_KEY:
            return [("api-key", secret.expose_secret())]
        return super().auth_headers(auth)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Whether more follows the finish reason: always, since a late filter may refute it."""
        del requested
        return True

    def __repr__(self) -> str:
        shown = "" if self.api_version is None else f"api_version={self.api_version!r}"
        return f"{type(self).__name__}({shown})"
