"""OpenAI's models at Azure: other addresses, and the model is a deployment."""

import re
from urllib.parse import quote

import msgspec

from minillmlib.auth.secret import Auth, AuthKind
from minillmlib.errors import InvalidParameterError
from minillmlib.protocols.batches.base import BatchApi
from minillmlib.protocols.batches.openai import OpenAiBatches
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.providers.base import Capabilities, Provider
from minillmlib.providers.models import openai as models
from minillmlib.providers.openai import OpenAiProvider
from minillmlib.providers.responses import ResponsesProvider
from minillmlib.types.parameters import CompletionParameters

# The version of the API that a deployment has in its address; any other one, such as `preview`,
# is for the v1 address.
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(?:-\w+)?")


def is_dated(api_version: str | None) -> bool:
    """Whether a version is one of the addresses before v1."""
    return api_version is not None and _DATED.fullmatch(api_version) is not None


class _AtAzure(Provider):
    """The addresses and headers of Azure, for both wires."""

    def __init__(self, api_version: str | None = None) -> None:
        if api_version is not None and not re.fullmatch(r"[\w.-]+", api_version, re.ASCII):
            raise InvalidParameterError(
                f"an api_version is a date or a word, such as 2024-10-21, not {api_version!r}"
            )
        self.api_version = api_version

    def request_url(self, base: str, model: str, *, stream: bool) -> str:
        """Return the address of a deployment, with the version if there is one."""
        url = super().request_url(base, model, stream=stream)
        return url if self.api_version is None else f"{url}?api-version={self.api_version}"

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """Return `api-key` for a key, and `Authorization` for a token of Entra; never both."""
        secret = auth.secret()
        if secret is not None and auth.kind is AuthKind.API_KEY:
            return [("api-key", secret.expose_secret())]
        return super().auth_headers(auth)

    def __repr__(self) -> str:
        shown = "" if self.api_version is None else f"api_version={self.api_version!r}"
        return f"{type(self).__name__}({shown})"


class AzureProvider(_AtAzure, OpenAiProvider):
    """Azure OpenAI, whose v1 addresses are OpenAI's, and whose dated ones name the deployment.

    Args:
        api_version: The version of the API: a date for addresses with the deployment in them;
            None, or a word such as `preview`, for the v1 address.
    """

    dialect: ChatDialect = msgspec.structs.replace(OpenAiProvider.dialect, name="Azure OpenAI")
    capabilities: Capabilities = OpenAiProvider.capabilities.replace(is_generic=True)
    batches: BatchApi | None = OpenAiBatches("/chat/completions")

    def request_url(self, base: str, model: str, *, stream: bool) -> str:
        """Return the address of a deployment, with the version if there is one."""
        if is_dated(self.api_version):
            base = f"{base.rstrip('/')}/deployments/{quote(model, safe='')}"
        return super().request_url(base, model, stream=stream)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Whether more follows the finish reason: always, since a late filter may refute it."""
        del requested
        return True


def _explain_refusal(model: str, params: CompletionParameters) -> str | None:
    reason = models.explain_responses_refusal(model, params)
    hint = (
        "a deployment whose model does not reason refuses encrypted content: use "
        "with_provider(AzureResponsesProvider(seals_reasoning=False))"
    )
    return reason or (hint if models.may_seal_reasoning(model) else None)


class AzureResponsesProvider(_AtAzure, ResponsesProvider):
    """The Responses wire at Azure.

    Args:
        api_version: The version of the API, if the address is not that of v1.
        seals_reasoning: Whether to ask for sealed reasoning, since the name of a deployment does
            not say whether its model reasons. A model that does not refuses such requests.
    """

    capabilities: Capabilities = ResponsesProvider.capabilities.replace(
        explain_refusal=_explain_refusal
    )

    def __init__(self, api_version: str | None = None, *, seals_reasoning: bool = True) -> None:
        super().__init__(api_version)
        self.seals_reasoning = seals_reasoning
