"""A minimalist, async-first interface to large language models over HTTP."""

import typing
from importlib import import_module as _import_module

from minillmlib.auth.credentials import CredentialSource
from minillmlib.auth.secret import Auth, AuthKind, Secret
from minillmlib.blocking import iterate, run
from minillmlib.client.context import CompletionContext, CompletionMeta
from minillmlib.client.estimate import estimate_cost
from minillmlib.client.http_request import RequestPreview
from minillmlib.client.observation import Observation, observe
from minillmlib.client.stream import StreamingCompletion, TrackedStream
from minillmlib.errors import *
from minillmlib.generator import GeneratorInfo
from minillmlib.locks import import_lock as _import_lock
from minillmlib.protocols.cache_control import PromptCache
from minillmlib.protocols.chat_completions.dialect import ChatDialect, MessageCapabilities
from minillmlib.protocols.finish_reasons import parse_finish_reason
from minillmlib.providers.anthropic import AnthropicProvider
from minillmlib.providers.azure import AzureProvider, AzureResponsesProvider
from minillmlib.providers.base import Billing, Capabilities, Provider
from minillmlib.providers.completions import CompletionsProvider
from minillmlib.providers.generic import GenericProvider
from minillmlib.providers.openai import OpenAiProvider
from minillmlib.providers.openrouter import OpenRouterProvider
from minillmlib.providers.responses import ResponsesProvider
from minillmlib.streaming.argument_stream import ArgumentStream, FieldStream
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.tree.node import ChatNode, ParsedNode
from minillmlib.tree.siblings import SiblingStreams
from minillmlib.tree.tool_loop import Tool, ToolEvent, ToolLoop, ToolRun
from minillmlib.types.budgets import Budget
from minillmlib.types.caching import CachePlan, CacheVerdict, PlannedBreakpoint
from minillmlib.types.costs import (
    Attempt,
    AttemptOutcome,
    CostEstimate,
    CostInfo,
    CostOutcome,
    CostResolution,
    CostTotal,
    TokenPrice,
)
from minillmlib.types.events import (
    AttemptEnded,
    AttemptStarted,
    BulkRunEnded,
    BulkRunStarted,
    CompletionEnded,
    CompletionStarted,
    CostUpdated,
    FirstByteReceived,
    HeadersReceived,
    ObservedEvent,
    Observer,
    RequestSent,
    ToolEnded,
    ToolLoopEnded,
    ToolLoopStarted,
    ToolStarted,
)
from minillmlib.types.limits import Limits, RateLimits
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart, VideoPart
from minillmlib.types.messages import ContentPart, Message, MessageContent, Role, TextPart
from minillmlib.types.pace import Pace
from minillmlib.types.parameters import (
    CompletionParameters,
    NodeCompletionParameters,
    ResponseFormat,
    TypedParameters,
)
from minillmlib.types.reasoning import Reasoning, ReasoningBlock, ReasoningConfig, ReasoningDelta
from minillmlib.types.responses import (
    CompletionResponse,
    FinishReason,
    RequestReport,
    StreamChunk,
    TokenLogprob,
)
from minillmlib.types.routing import ProviderSettings
from minillmlib.types.tools import ToolCall, ToolCallDelta, ToolChoice, ToolDefinition
from minillmlib.types.usage import Usage, UsageUpdate
from minillmlib.version import __version__

if typing.TYPE_CHECKING:
    from minillmlib.bulk.outcome import BulkOutcome, BulkProgress
    from minillmlib.bulk.progress import ProgressLine
    from minillmlib.bulk.run import BulkRun, map_complete
    from minillmlib.bulk.width import Width
    from minillmlib.client.request_log import log_requests
    from minillmlib.json_repair import (
        JsonChange,
        JsonChangeKind,
        RepairResult,
        loads,
        repair,
        repair_json,
    )
    from minillmlib.recording.answer_cache import AnswerCache
    from minillmlib.recording.recording import Recording
    from minillmlib.workers.bank import Bank, BankLike, Lease
    from minillmlib.workers.job import Bulk, BulkReport
    from minillmlib.workers.runtime import BulkRuntime

__all__ = [
    "AnswerCache",
    "AnthropicProvider",
    "ApiError",
    "ArgumentStream",
    "Attempt",
    "AttemptEnded",
    "AttemptOutcome",
    "AttemptStarted",
    "AudioPart",
    "Auth",
    "AuthKind",
    "AuthenticationError",
    "AzureProvider",
    "AzureResponsesProvider",
    "BadRequestError",
    "Bank",
    "BankLike",
    "Billing",
    "BillingError",
    "Budget",
    "BudgetExceededError",
    "Bulk",
    "BulkOutcome",
    "BulkProgress",
    "BulkReport",
    "BulkRun",
    "BulkRunEnded",
    "BulkRunStarted",
    "BulkRuntime",
    "CachePlan",
    "CacheVerdict",
    "Capabilities",
    "ChatDialect",
    "ChatNode",
    "CompletionContext",
    "CompletionEnded",
    "CompletionMeta",
    "CompletionParameters",
    "CompletionResponse",
    "CompletionStarted",
    "CompletionsProvider",
    "ConflictError",
    "ConnectError",
    "ContentFilterError",
    "ContentPart",
    "ContextLengthError",
    "CostCallbackError",
    "CostEstimate",
    "CostInfo",
    "CostOutcome",
    "CostResolution",
    "CostTotal",
    "CostUpdated",
    "CredentialSource",
    "DocumentPart",
    "EmptyResponseError",
    "EmptyThreadError",
    "FieldStream",
    "FinishReason",
    "FirstByteReceived",
    "GeneratorInfo",
    "GenericProvider",
    "HeadersReceived",
    "HttpRequest",
    "HttpResponse",
    "ImagePart",
    "IncompleteJsonError",
    "IncompleteStreamError",
    "InvalidParameterError",
    "JsonChange",
    "JsonChangeKind",
    "JsonRepairError",
    "Lease",
    "LimitExceededError",
    "Limits",
    "LocalModelError",
    "MalformedResponseError",
    "MaxRetriesExceededError",
    "MediaPart",
    "Message",
    "MessageCapabilities",
    "MessageContent",
    "MiniLLMError",
    "MissingExtraError",
    "MissingFieldError",
    "ModelLoadingError",
    "NoJsonFoundError",
    "NodeCompletionParameters",
    "NotFoundError",
    "NotRecordedError",
    "Observation",
    "ObservedEvent",
    "Observer",
    "OpenAiProvider",
    "OpenRouterProvider",
    "OverloadedError",
    "Pace",
    "ParsedNode",
    "PartialFailureError",
    "PermissionDeniedError",
    "PlannedBreakpoint",
    "ProgressLine",
    "PromptCache",
    "ProtocolError",
    "Provider",
    "ProviderSettings",
    "RateLimitError",
    "RateLimits",
    "ReadError",
    "Reasoning",
    "ReasoningBlock",
    "ReasoningConfig",
    "ReasoningDelta",
    "Recording",
    "RedirectError",
    "RejectedResponseError",
    "RepairResult",
    "RequestPreview",
    "RequestReport",
    "RequestSent",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "ResponseFormat",
    "ResponseValidationError",
    "ResponsesProvider",
    "Role",
    "Secret",
    "ServerError",
    "ServerTimeoutError",
    "SiblingStreams",
    "StaleConnectionError",
    "StorageError",
    "StreamChunk",
    "StreamingCompletion",
    "TextPart",
    "TlsError",
    "TokenLogprob",
    "TokenPrice",
    "Tool",
    "ToolArgumentError",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolDefinition",
    "ToolEnded",
    "ToolError",
    "ToolEvent",
    "ToolLoop",
    "ToolLoopEnded",
    "ToolLoopStarted",
    "ToolRun",
    "ToolStarted",
    "TrackedStream",
    "Transport",
    "TransportError",
    "TurnLimitError",
    "TypedParameters",
    "Usage",
    "UsageUpdate",
    "VideoPart",
    "Width",
    "__version__",
    "estimate_cost",
    "iterate",
    "loads",
    "log_requests",
    "map_complete",
    "observe",
    "parse_finish_reason",
    "repair",
    "repair_json",
    "run",
]

# A quarter of our import, and few programs need all: imported on first use, from these modules.
_DEFERRED = {
    "AnswerCache": "minillmlib.recording.answer_cache",
    **dict.fromkeys(("Bank", "BankLike", "Lease"), "minillmlib.workers.bank"),
    **dict.fromkeys(("Bulk", "BulkReport"), "minillmlib.workers.job"),
    **dict.fromkeys(("BulkOutcome", "BulkProgress"), "minillmlib.bulk.outcome"),
    **dict.fromkeys(("BulkRun", "map_complete"), "minillmlib.bulk.run"),
    "BulkRuntime": "minillmlib.workers.runtime",
    "ProgressLine": "minillmlib.bulk.progress",
    "Recording": "minillmlib.recording.recording",
    "Width": "minillmlib.bulk.width",
    "log_requests": "minillmlib.client.request_log",
    **dict.fromkeys(
        ("JsonChange", "JsonChangeKind", "RepairResult", "loads", "repair", "repair_json"),
        "minillmlib.json_repair.api",
    ),
}


def __getattr__(name: str) -> object:
    if name not in _DEFERRED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _import_lock:
        value = getattr(_import_module(_DEFERRED[name]), name)
    value.__module__ = __name__
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


for _public in (globals()[_name] for _name in __all__ if _name not in _DEFERRED):
    if callable(_public) and _public.__module__.startswith(f"{__name__}."):  # not `typing.Any`
        _public.__module__ = __name__
