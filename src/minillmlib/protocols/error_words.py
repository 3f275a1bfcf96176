"""The words by which servers name the cause of a failure, as data.

A phrase stands in a message, in lower case; `...` is up to 40 characters of the same sentence. Its
value names those who say it. A phrase counts only with the statuses of its kind: with any other
one, the status is the better witness. `None` is a failure inside a success without a number.

Words are symbolic codes and types. The first phrase found decides, then the first word, then the
status. A miss is never a success: without a known word or number, a failure is a `ServerError`.
"""

from __future__ import annotations

from collections.abc import Mapping

from minillmlib.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    ContentFilterError,
    ContextLengthError,
    ModelLoadingError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    ServerTimeoutError,
)

PHRASES: Mapping[type[ApiError], Mapping[str, str]] = {
    BillingError: {
        "credit balance": "Anthropic, 400",
        "extra usage": "Anthropic, 400 and 429, of subscriptions",
        "spend limit": "Anthropic, 429",
        "api usage limits": "Anthropic, 400",
        "insufficient balance": "DeepSeek, 402; Z.ai 1113, 429; MiniMax 1008, 200",
        "insufficient account balance": "relays",
        "balance is insufficient": "SiliconFlow, 403",
        "balance is not enough": "relays",
        "insufficient credit": "OpenRouter, 402; relays",
        "used all available credits": "xAI, 403",
        "monthly spending limit": "xAI, 403; Fireworks, 412",
        "exceeded your monthly included credits": "Hugging Face, 402",
        "please enable billing": "Gemini, 400 FAILED_PRECONDITION",
        "budget has been exceeded": "LiteLLM, 400, 422 and 429",
        "crossed budget": "LiteLLM's router, 429 rate_limit_error",
        "exceeded budget": "LiteLLM: of a key, a user, a team or a provider",
    },
    AuthenticationError: {
        "only authorized for use with claude code": "Anthropic, 400 and 403",
        "oauth authentication is currently not supported": "Anthropic, 401",
        "api key not valid": "Gemini, 400",
        "invalid api key": "Groq; MiniMax 2049",
        "incorrect api key": "OpenAI; xAI, 400",
        "wrong api key": "Cerebras",
        "authentication error": "Cloudflare 10000, 401 and 403",
        "no connected db": "LiteLLM, 400: a key other than the master key, without a database",
        "security token included in the request is": "Bedrock, 403: invalid or expired",
    },
    ContentFilterError: {
        "contentpolicyviolationerror": "LiteLLM, 400",
        "content management policy": "Azure, 400",
        "rejected as a result of our safety system": "OpenAI, 400",
        "flagged as potentially violating our usage policy": "OpenAI, 400 invalid_prompt",
        "content exists risk": "DeepSeek, 400",
        "data may contain inappropriate content": "Alibaba, 400",
        "potentially unsafe or sensitive content": "Z.ai 1301, 400",
    },
    RequestTooLargeError: {
        "request too large for": "OpenAI, 429; Groq, 413: one request above the limit of a minute",
    },
    ContextLengthError: {
        "prompt is too long": "Anthropic; Bedrock; Fireworks",
        "prompt too long; exceed": "Ollama",
        "prompt exceeds max length": "Z.ai 1261",
        "prompt token count...exceeds the limit": "GitHub Copilot",
        "maximum context length": "OpenAI, vLLM, OpenRouter, Mistral, DeepSeek, SGLang",
        "maximum context limit": "LiteLLM's test cases",
        "maximum prompt length is": "xAI",
        "maximum model length": "vLLM: the prompt is longer than it",
        "maximum allowed input length": "Poolside by OpenRouter",
        "available context size": "llama.cpp, 400 and 500",
        "context size has been exceeded": "llama.cpp, inside a stream",
        "configured context size is": "DS4",
        "context length is only": "vLLM from 0.11 on",
        "context length exceed": "relays",
        "context_length_exceeded": "OpenAI's code in the text of a relay",
        "context window exceed": "LiteLLM; MiniMax 2013",
        "context window error": "LiteLLM for Bedrock",
        "contextwindowexceedederror": "LiteLLM, 400",
        "exceed...context length": "Ollama, SGLang",
        "exceed...context limit": "Anthropic: input and max_tokens together",
        "exceed...context size": "llama.cpp",
        "exceed...context window": "OpenAI; llama-cpp-python",
        "longer than the model's context length": "Together, SGLang",
        "greater than the context length": "LM Studio",
        "input token count...exceeds the maximum": "Gemini",
        "exceeds the maximum number of tokens allowed": "Gemini, Vertex",
        "input tokens exceeded": "Bedrock, 400 ValidationException",
        "input tokens exceed the configured limit": "OpenAI",
        "input is too long for requested model": "Bedrock, 400 ValidationException",
        "exceeded model token limit": "Kimi",
        "current length is...while limit is": "Cerebras",
        "reduce the length of the messages": "OpenAI, Groq, Cerebras",
        "reduce the length of the input": "vLLM",
        "range of input length should be": "Alibaba, 400 InvalidParameter",
        "`inputs` tokens + `max_new_tokens` must be": "TGI, 422",
        "`inputs` must have less than": "TGI, 422",
        "too many tokens: ...exceed": "Cohere",
    },
    NotFoundError: {
        "model identifier is invalid": "Bedrock, 400",
        "is not a valid model id": "OpenRouter, 400",
        "invalid model name passed": "LiteLLM, 400",
        "model not exist": "DeepSeek, 400",
    },
    PermissionDeniedError: {
        "user location is not supported": "Gemini, 400 FAILED_PRECONDITION",
    },
    ModelLoadingError: {
        "loading model": "llama.cpp, 503",
        "is currently loading": "Hugging Face, 503",
    },
    OverloadedError: {
        "is overloaded": "Gemini, 503",
        "currently overloaded": "OpenAI, 429 and 500",
        "experiencing high demand": "Gemini, 503",
    },
    RateLimitError: {
        "too many requests": "relays that have lost the status",
        "too many tokens, please wait": "Bedrock, inside a stream",
        "rate limit": "relays that have lost the status",
    },
    BadRequestError: {  # that servers take for their own failure, again and again
        "input is not supported": "llama.cpp, 500: an image or a sound without mmproj",
        "conversation roles must alternate": "llama.cpp, 500, of the model's template",
        "requires --jinja": "llama.cpp, 500: tools",
        "failed to parse grammar": "llama.cpp, 500",
    },
}

# The statuses with which the phrases of a kind count; a kind that is not here counts with any.
PHRASE_STATUSES: Mapping[type[ApiError], frozenset[int | None]] = {
    AuthenticationError: frozenset({None, 400, 401, 403}),
    ContentFilterError: frozenset({None, 400, 403, 422, 451, 500}),
    RequestTooLargeError: frozenset({None, 400, 413, 429}),
    ContextLengthError: frozenset({None, 400, 412, 413, 422, 424, 500, 502}),
    NotFoundError: frozenset({None, 400, 404, 422}),
    PermissionDeniedError: frozenset({None, 400, 403}),
    ModelLoadingError: frozenset({503}),
    OverloadedError: frozenset({None, 429, 500, 502, 503}),
    RateLimitError: frozenset({None, 500, 502}),
    BadRequestError: frozenset({None, 500, 502}),
}


def _by_word(words: dict[type[ApiError], str]) -> dict[str, type[ApiError]]:
    return {word: kind for kind, each in words.items() for word in each.split()}


# Codes and types in lower case, with any status.
WORDS = _by_word(
    {
        ContextLengthError: (
            "context_length_exceeded exceed_context_size_error token_limit_exceeded "
            "model_max_prompt_tokens_exceeded model_context_window_exceeded"
        ),
        AuthenticationError: (
            "invalid_api_key authentication authentication_error unauthenticated wrong_api_key "
            "no_db_connection "  # LiteLLM
            "api_key_invalid access_token_expired "  # Google's ErrorInfo
            "unrecognizedclientexception invalidsignatureexception expiredtokenexception "  # AWS
            "invalidapikey"  # Alibaba
        ),
        BillingError: (
            "insufficient_quota exceeded_current_quota_error billing_error payment_required "
            "budget_exceeded billing_disabled quota_per_day servicequotaexceededexception "
            "arrearage "  # Alibaba
            "credit_balance_exhausted"  # OpenAI, inside a stream of its Responses
        ),
        PermissionDeniedError: (
            "permission_denied permission_error unsupported_country_region_territory "
            "accessdeniedexception service_disabled consumer_suspended api_key_service_blocked"
        ),
        ContentFilterError: (
            "content_filter content_policy_violation refusal datainspectionfailed "
            "data_inspection_failed "
            "bio_policy misalignment_policy_violation "  # OpenAI's Responses
            "image_content_policy_violation"
        ),
        NotFoundError: (
            "model_not_found not_found not_found_error model_not_available deploymentnotfound "
            "resourcenotfoundexception modelnotfound"
        ),
        RequestTooLargeError: "payload_too_large request_too_large",
        ConflictError: "conflict_error",
        RateLimitError: (
            "rate_limit_exceeded rate_limit_error capacity_exhausted ratelimitreached "
            "too_many_requests "  # Azure, also inside a stream (openai-dotnet#881)
            "throttlingexception throttling throttling.ratequota throttling.allocationquota"
        ),
        ModelLoadingError: "modelnotreadyexception",
        OverloadedError: (
            "overloaded_error provider_overloaded temporarily_unavailable engine_overloaded_error "
            "serviceunavailableexception"
        ),
        ServerTimeoutError: "modeltimeoutexception vector_store_timeout",
        ServerError: "modelerrorexception modelstreamerrorexception internalserverexception",
    }
)

# Words so general that a status says more; they count only inside a success.
GENERAL_WORDS = _by_word(
    {
        AuthenticationError: "authenticationerror",
        PermissionDeniedError: "permissiondeniederror",
        NotFoundError: "notfounderror resource_does_not_exist",
        RateLimitError: "resource_exhausted ratelimiterror request_limit_exceeded",
        OverloadedError: "unavailable overloaded serviceunavailableerror unavailable_error",
        ServerTimeoutError: "timeout timeout_error deadline_exceeded requesttimeout",
        ServerError: (
            "api_error provider_unavailable server server_error internal internal_error "
            "internalerror internalservererror unknown"
        ),
        BadRequestError: (
            "integer_below_min_value invalid_prompt invalid_request invalid_request_error "
            "invalid_value max_tokens_exceeded string_above_max_length string_too_long "
            "unprocessable unsupported_parameter unsupported_value bad_request badrequesterror "
            "bad_request_error invalid_argument failed_precondition invalidparameter "
            "invalid_parameter_error validationexception "
            # OpenAI's Responses, inside a success
            "invalid_encrypted_content data_residency_mismatch invalid_image invalid_image_format "
            "invalid_base64_image invalid_image_url invalid_image_mode image_too_large "
            "image_too_small image_parse_error unsupported_image_media_type empty_image_file "
            "image_file_too_large image_file_not_found failed_to_download_image"
        ),
    }
)

# Z.ai's codes with which its 429 is no rate limit: balance, plan and package.
ZAI_BILLING_CODES = frozenset(map(str, (1113, *range(1308, 1312), *range(1313, 1322))))

# MiniMax's `base_resp.status_code`, inside a success; 0 is none. Others are a `ServerError`.
BASE_RESP_CODES: Mapping[int, type[ApiError]] = {
    1001: ServerTimeoutError,
    1002: RateLimitError,
    1004: AuthenticationError,
    1008: BillingError,
    1026: ContentFilterError,  # the input
    1027: ContentFilterError,  # the output
    1039: RateLimitError,  # of tokens
    1041: RateLimitError,  # of connections
    1042: BadRequestError,
    2013: BadRequestError,
    2049: AuthenticationError,
    2056: BillingError,
}

# The keys of a failure's text, the most telling first. Each of the first ones makes an object
# without an answer a failure; the others may stand in any object.
MESSAGE_KEYS = (
    "message", "Message", "detail", "msg", "error_msg", "error_message", "errorMessage",
)  # fmt: skip
MORE_MESSAGE_KEYS = (
    "status_msg", "error_description", "description", "details", "title", "reason",
)  # fmt: skip
