"""Which error a server's own words become, on every wire, whole and streamed."""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

import pytest

import minillmlib
from minillmlib import ApiError, ChatNode, GeneratorInfo, MiniLLMError, NodeCompletionParameters
from minillmlib.protocols.error_words import BASE_RESP_CODES, PHRASE_STATUSES, PHRASES, WORDS
from minillmlib.testing import ScriptedReply, ScriptedTransport

ROOT = ChatNode.root("s")
QUICK = NodeCompletionParameters(retry=2, back_off_time=0)
CHAT = GeneratorInfo.custom("t", "https://t.example/v1", "m")
WIRES = {"chat": CHAT, "messages": CHAT.with_provider(minillmlib.AnthropicProvider())}
MODES = ("whole", "streamed")
NUMBERS = itertools.count()


class Failure(NamedTuple):
    error: MiniLLMError
    requests: int

    @property
    def kind(self) -> str:
        return type(self.error).__name__


def failure(reply: ScriptedReply, mode: str = "whole", wire: str = "chat", params=QUICK) -> Failure:
    """The error of the last attempt, if all get the same reply, and how many there were."""
    transport = ScriptedTransport([reply] * 3)
    # Each failure is another server's: retries of one server share a quota.
    server = WIRES[wire].with_base_url(f"https://t{next(NUMBERS)}.example/v1")
    generator = server.with_transport(transport)
    with pytest.raises(MiniLLMError) as caught:
        if mode == "whole":
            minillmlib.run(ROOT.chat("u", generator, params))
        else:
            list(minillmlib.iterate(ROOT.chat_streaming("u", generator, params)))
    error = getattr(caught.value, "last_error", caught.value)
    return Failure(error, len(transport.requests))


def refused(status: int, body: object, headers: dict[str, str] | None = None) -> ScriptedReply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ScriptedReply(pieces=(data,), status=status, headers=headers or {})


def said(message: str, **more: object) -> dict:
    return {"error": {"message": message, **more}}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


# The context.

OVERFLOWS = [
    (400, said("litellm.BadRequestError: Context Window exceeded for given call.", code="400")),
    (400, said("invalid params, context window exceeds limit (2013)")),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message":
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"}}),
    (400, said("You passed 9001 input tokens. However, the model's context length is only 8192.")),
    (422, said("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens",
               error_type="validation")),
    (413, said("This model's maximum context length is 8192 tokens.")),
    (500, said("the request exceeds the available context size. try increasing it",
               type="server_error")),
    (400, [said("The input token count (1200000) exceeds the maximum number of tokens allowed "
                "(1048576).", status="INVALID_ARGUMENT", code=400)]),
    (400, {"code": "Client specified an invalid argument", "error":
           "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
    (400, {"message": "The model returned the following errors: Input Tokens Exceeded: Number of "
           "input tokens exceeds maximum length."}),
    (400, {"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"}),
    (400, said("Provider returned error", metadata={"raw":
        '{"type":"error","error":{"message":"prompt is too long: 9 tokens > 8 maximum"}}'})),
    (500, said("Error code: 400 - {'error': {'message': \"This model's maximum context length is "
               "8192 tokens.\", 'code': None}}")),
    (400, said("Requested tokens (5000) exceed context window of 4096")),
    (400, said("too many tokens: total number of tokens in the prompt exceeds the limit of 4081")),
    (400, said("Prompt exceeds max length", code="1261")),
    (400, said("long", code="model_max_prompt_tokens_exceeded")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), OVERFLOWS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("mode", MODES)
def test_a_conversation_that_is_too_long_is_known_by_any_servers_words(status, body, wire, mode):
    found = failure(refused(status, body), mode, wire)
    assert (found.kind, found.requests) == ("ContextLengthError", 1)
    assert "shorten the conversation" in str(found.error)


def test_inside_a_success_the_same_words_count():
    for status, body in OVERFLOWS:
        payload = body if isinstance(body, dict) and "error" in body else None
        if payload is not None:
            for mode in MODES:
                reply = (ScriptedReply.json(payload) if mode == "whole"
                         else ScriptedReply.events(event(payload)))  # fmt: skip
                assert failure(reply, mode).kind == "ContextLengthError", (status, body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, said("Rate limit reached on tokens per min (TPM): Limit 30000, Requested 2200."),
         "RateLimitError"),
        (429, said("This request would exceed the rate limit of your organization of 400,000 input "
                   "tokens per minute; reduce the length of the messages."), "RateLimitError"),
        (429, {"message": "Too many tokens, please wait before trying again."}, "RateLimitError"),
        (400, said("max_tokens is too large: 100000. This model supports at most 16384 completion "
                   "tokens, whereas you provided 100000."), "BadRequestError"),
        (400, said("max_tokens: 200000 > 64000, which is the maximum allowed number of output "
                   "tokens for claude-x"), "BadRequestError"),
        (400, said("Range of max_tokens should be [1, 8192]"), "BadRequestError"),
        (400, said("Invalid 'messages[2].tool_calls[0].id': string too long. Expected a string "
                   "with maximum length 40.", code="string_above_max_length"), "BadRequestError"),
        (400, said("image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes"), "BadRequestError"),
        (400, said("The size of the tool result exceeds the limit. See the context window guide."),
         "BadRequestError"),
        (400, said("Unknown parameter: 'context_window'."), "BadRequestError"),
        (413, said("Request too large for model `m` on tokens per minute (TPM): Limit 6000, "
                   "Requested 8000, please reduce your message size.", code="rate_limit_exceeded"),
         "RequestTooLargeError"),
        (503, said("Overloaded: the queue exceeds the context size of this node"),
         "OverloadedError"),
    ],
)  # fmt: skip
def test_words_about_tokens_that_are_no_overflow(status, body, kind):
    assert failure(refused(status, body)).kind == kind


@pytest.mark.parametrize("text", ["The prompt is too long", "my credit balance", "no connected db.",
                                  "the maximum context length, that's it"])  # fmt: skip
@pytest.mark.parametrize(
    "message",
    ["Invalid value: '{}'. Supported values are: 'a' and 'b'.", 'unexpected tool name "{}"', "unexpected tool name “{}”",
     "1 validation error [type=string_type, input_value='{}', input_type=str]",
     "{{'type': 'missing', 'msg': 'Field required', 'input': {{'content': '{}'}}}}"],
)  # fmt: skip
def test_what_the_server_quotes_of_the_request_is_no_cause(message, text):
    assert failure(refused(400, said(message.format(text)))).kind == "BadRequestError"


# Money, keys, filters, loads.


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, said("Insufficient balance or no resource package. Please recharge.", code="1113"),
         "BillingError"),
        (429, said("The plan has expired", code="1309"), "BillingError"),
        (402, said("Insufficient Balance", code="invalid_request_error"), "BillingError"),
        (429, said("x", type="insufficient_quota", code="insufficient_quota"), "BillingError"),
        (429, said("Your account is suspended", type="exceeded_current_quota_error"),
         "BillingError"),
        (429, said("You exceeded your current quota.", status="RESOURCE_EXHAUSTED", details=[
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
             "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]),
         "BillingError"),
        (403, {"code": "forbidden", "error": "Your team has either used all available credits or "
               "reached its monthly spending limit."}, "BillingError"),
        (422, said("Budget has been exceeded! Current cost: 1.0", type="budget_exceeded"),
         "BillingError"),
        (429, said("No deployments available - crossed budget: Exceeded budget for provider x",
                   type="rate_limit_error"), "BillingError"),
        (400, said("API key not valid.", status="INVALID_ARGUMENT",
                   details=[{"reason": "API_KEY_INVALID"}]), "AuthenticationError"),
        (400, said("x", details=[{"reason": "API_KEY_INVALID"}]), "AuthenticationError"),
        (400, said("No connected db.", type="no_db_connection"), "AuthenticationError"),
        (400, said("Incorrect API key provided: [hidden]."), "AuthenticationError"),
        (400, said("litellm.ContentPolicyViolationError: AzureException - filtered"),
         "ContentFilterError"),
        (400, said("The response was filtered due to the prompt triggering Azure OpenAI's content "
                   "management policy."), "ContentFilterError"),
        (400, said("Content Exists Risk"), "ContentFilterError"),
        (400, {"message": "The provided model identifier is invalid."}, "NotFoundError"),
        (400, said("User location is not supported for the API use.",
                   status="FAILED_PRECONDITION"), "PermissionDeniedError"),
        (400, said("nope/x is not a valid model ID", code=400), "NotFoundError"),
        (500, said("image input is not supported - hint: you may need to provide the mmproj",
                   code=500, type="server_error"), "BadRequestError"),
        (500, said("audio input is not supported", code=500), "BadRequestError"),
        (500, said("tools param requires --jinja flag", code=500), "BadRequestError"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_what_waiting_does_not_mend_is_named_and_not_tried_again(status, body, kind, mode):
    found = failure(refused(status, body), mode)
    assert (found.kind, found.requests) == (kind, 1)
    assert found.error.retry_after_secs is None


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"),
    [
        (429, said("Rate limit reached for requests", code="1302"), {}, "RateLimitError"),
        (424, {"message": "The system encountered an unexpected error.", "originalStatusCode": 500},
         {"x-amzn-errortype": "ModelErrorException:http://internal"}, "ServerError"),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, {},
         "ServerError"),
        (429, {"message": "Try again."}, {"x-amzn-errortype": "ModelNotReadyException"},
         "ModelLoadingError"),
        (429, {"message": "Too many tokens, please wait before trying again."},
         {"x-amzn-errortype": "ThrottlingException:http://internal"}, "RateLimitError"),
        (503, said("The model is overloaded. Please try again later.", status="UNAVAILABLE"), {},
         "OverloadedError"),
        (500, said("The server is currently overloaded with other requests."), {},
         "OverloadedError"),
        (429, said("Engine busy", type="engine_overloaded_error"), {}, "OverloadedError"),
        (503, {"error": "Model x is currently loading", "estimated_time": 20.0}, {},
         "ModelLoadingError"),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again(status, body, headers, kind):
    found = failure(refused(status, body, headers))
    assert (found.kind, found.requests) == (kind, 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("UnrecognizedClientException:http://internal.amazon.com/", "AuthenticationError"),
     ("ExpiredTokenException", "AuthenticationError"),
     ("AccessDeniedException", "PermissionDeniedError")],
)  # fmt: skip
def test_aws_names_the_cause_in_a_header(name, kind):
    found = failure(refused(403, {"Message": "The key is invalid"}, {"x-amzn-errortype": name}))
    assert (found.kind, found.error.code) == (kind, name.partition(":")[0])
    assert "The key is invalid" in str(found.error)


# The table itself.


@pytest.mark.parametrize(
    ("kind", "phrase"), [(kind, phrase) for kind, phrases in PHRASES.items() for phrase in phrases]
)
def test_each_phrase_of_the_table_means_its_kind_with_each_of_its_statuses(kind, phrase):
    message = f"Sorry! {phrase.replace('...', ' (12) ').capitalize()} (34)."
    for status in PHRASE_STATUSES.get(kind, {400, 402, 422, 429}):
        reply = (
            ScriptedReply.json(said(message)) if status is None else refused(status, said(message))
        )
        found = failure(reply, params=NodeCompletionParameters(retry=0))
        expected = minillmlib.RequestTooLargeError if status == 413 else kind
        assert type(found.error) in (kind, expected), status
        assert phrase.partition("...")[0] in str(found.error).lower()


@pytest.mark.parametrize("word", WORDS)
def test_each_word_of_the_table_means_its_kind_in_any_case(word):
    for shown in (word, word.upper()):
        assert type(failure(refused(400, said("x", code=shown))).error) is WORDS[word]


def test_words_that_nobody_knows_leave_the_status_to_decide():
    for status, kind in ((400, "BadRequestError"), (429, "RateLimitError"), (500, "ServerError")):
        body = said("Something else entirely.", code="new_code", type="9999")
        assert failure(refused(status, body)).kind == kind


# Failures inside a success, without the key `error`.

BARE = [
    ({"id": "1", "choices": None, "usage": {"total_tokens": 0},
      "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
     "insufficient balance", "BillingError", 1),
    ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
     "rate limit", "RateLimitError", 3),
    ({"choices": None, "base_resp": {"status_code": 9999, "status_msg": "something new"}},
     "something new", "ServerError", 3),
    ({"code": "InvalidParameter", "message": "Range of max_tokens", "request_id": "r"},
     "Range of max_tokens", "BadRequestError", 1),
    ({"code": "Arrearage", "message": "Access denied."}, "Access denied", "BillingError", 1),
    ({"detail": "model is not deployed"}, "not deployed", "ServerError", 1),
    ({"detail": [{"loc": ["body", "x"], "msg": "bad"}]}, "body.x: bad", "ServerError", 1),
    ({"message": "Wrong API Key", "type": "invalid_request_error", "code": "wrong_api_key"},
     "Wrong API Key", "AuthenticationError", 1),
    ({"success": False, "result": None, "messages": [],
      "errors": [{"code": 7003, "message": "no such model @cf/x"}]}, "@cf/x", "ServerError", 1),
    ({"code": 503, "message": "no capacity"}, "no capacity", "OverloadedError", 3),
    ({"code": 40101, "msg": "token has expired"}, "token has expired", "ServerError", 1),
]  # fmt: skip


@pytest.mark.parametrize(("body", "words", "kind", "requests"), BARE)
@pytest.mark.parametrize("mode", MODES)
def test_a_success_that_only_carries_a_message_is_an_error_that_quotes_it(
    body, words, kind, requests, mode
):
    reply = ScriptedReply.json(body) if mode == "whole" else ScriptedReply.events(event(body))
    found = failure(reply, mode)
    assert (found.kind, found.requests) == (kind, requests)
    assert words in str(found.error)
    assert found.error.status == 200


@pytest.mark.parametrize(
    ("body", "words"), [({"detail": "model is not deployed"}, "not deployed"),
                        ({"code": 503, "message": "no capacity"}, "no capacity")],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_so_it_is_on_the_messages_wire(body, words, mode):
    reply = ScriptedReply.json(body) if mode == "whole" else ScriptedReply.events(event(body))
    found = failure(reply, mode, "messages")
    assert isinstance(found.error, ApiError)
    assert words in str(found.error)


def test_a_message_after_text_keeps_the_text():
    start = event({"choices": [{"index": 0, "delta": {"content": "par"}}]})
    found = failure(ScriptedReply.events(start + event({"detail": "the engine died"})), "streamed")
    assert (found.error.partial, found.requests) == ("par", 1)
    assert "the engine died" in str(found.error)


@pytest.mark.parametrize(
    "extra", [event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
              event({"choices": [], "base_resp": {"status_code": 0, "status_msg": ""}}),
              event({"id": "1", "model": "m"}), event({"message": {"role": "assistant"}}),
              event({"message": ""}),
              event({"choices": [], "usage": {"prompt_tokens": 1}, "message": "counted"})],
)  # fmt: skip
def test_an_event_that_says_nothing_is_no_error(extra):
    end = event({"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}],
                 "base_resp": {"status_code": 0, "status_msg": ""}})  # fmt: skip
    generator = CHAT.with_transport(ScriptedTransport([ScriptedReply.events(extra + end)]))
    stream = ROOT.chat_streaming("u", generator)
    assert "".join(chunk.delta for chunk in minillmlib.iterate(stream)) == "ok"


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_beside_an_answer_is_no_success(mode):
    choice = {"index": 0, "finish_reason": "stop",
              ("message" if mode == "whole" else "delta"): {"content": "half"}}  # fmt: skip
    body = {"choices": [choice], "base_resp": {"status_code": 1027, "status_msg": "output filter"}}
    reply = ScriptedReply.json(body) if mode == "whole" else ScriptedReply.events(event(body))
    assert failure(reply, mode).kind == "ContentFilterError"


@pytest.mark.parametrize("code", BASE_RESP_CODES)
def test_each_number_of_minimax_means_its_kind(code):
    body = {"choices": None, "base_resp": {"status_code": code, "status_msg": "x"}}
    found = failure(ScriptedReply.json(body))
    assert type(found.error) is BASE_RESP_CODES[code]


# Shapes.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"success": False, "errors": [{"code": 10000, "message": "Authentication error"},
                                       {"code": 7, "message": "and more"}]},
         ("Authentication error", "and more")),
        ({"error_code": "BAD_REQUEST", "message": "Extra inputs"}, ("Extra inputs",)),
        ({"statusCode": 400, "error": "Bad Request", "message": "model must be set"},
         ("Bad Request", "model must be set")),
        ({"message": "Validation failed", "errors": [{"message": "model is required"}]},
         ("Validation failed", "model is required")),
        ({"title": "Bad Request", "status": 400, "detail": "no such field"}, ("no such field",)),
        ({"detail": {"error": {"message": "nested deep"}}}, ("nested deep",)),
        ({"errors": ["first", "second"]}, ("first; second",)),
        ({"error": {"message": "", "details": "quota of project 7"}}, ("quota of project 7",)),
        ({"Message": "in capitals"}, ("in capitals",)),
        ({"error": "invalid_grant", "error_description": "expired"}, ("invalid_grant", "expired")),
    ],
)  # fmt: skip
def test_all_words_of_a_refusal_are_in_the_message(body, words):
    text = str(failure(refused(400, body)).error)
    assert all(word in text for word in words), text
    assert "{" not in text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (event(said("slow down", code="rate_limit_exceeded")), "slow down"),
        (b"event: error\n" + event(said("slow down")) + b"data: [DONE]\n\n", "slow down"),
        (b": ping\n\nid: 1\n" + event({"message": "slow down"}), "slow down"),
        (b'data: {"error":{"message":"slow down"}}', "slow down"),
        (b"\r\ndata:slow down\r\n\r\n", "429: slow down ("),
        (b"error: slow down\n\n", "429: slow down"),
        (b"data:\n\n", "429"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_refusal_that_is_sent_as_a_stream_is_read(body, words, mode):
    headers = {"content-type": "text/event-stream"}
    found = failure(ScriptedReply(pieces=(body,), status=429, headers=headers), mode)
    assert found.kind == "RateLimitError"
    assert words.rstrip("( ") in str(found.error)
    assert "data:" not in str(found.error).replace("data:\n", "") or words == "429"


# Waits.


@pytest.mark.parametrize(
    ("message", "secs"),
    [
        ("Please try again in 2.42s.", 2.42), ("Please try again in 20ms.", 0.02),
        ("Please try again in 6m0s. Visit", 360), ("Please try again in 7m33.6s.", 453.6),
        ("Please retry after 22 seconds.", 22), ("Please retry in 34.4s.", 34.4),
        ("Retry after 40 seconds.", 40), ("Try again in 5 minutes", 300), ("retry in 1h", 3600),
        ("please wait 3 secs", 3), ("Try again in 500 milliseconds", 0.5), ("try again in 5 s", 5),
        ("Try again in 9999999999 days.", 366 * 86400),
        ("wait a moment and try again", None), ("retry after 3 failed attempts", None),
        ("try again in -5s", None), ("try again in 0s", None), ("try again in 1.2.3s", None),
        ("try again in NaNs", None), ("within the last 5 minutes, please wait", None),
        ("Limit 30000, Used 29010", None), ("try again in 5 moments", None),
    ],
)  # fmt: skip
def test_the_wait_in_a_message_is_read_and_nonsense_is_not(message, secs):
    once = NodeCompletionParameters(retry=0)
    for status in (429, 503):
        found = failure(refused(status, said(message)), params=once)
        assert found.error.retry_after_secs == (pytest.approx(secs) if secs else None)
    assert failure(refused(400, said(message))).error.retry_after_secs is None


@pytest.mark.parametrize(
    ("delay", "secs"),
    [("34s", 34), ("34.4s", 34.4), ("0.5s", 0.5), ("1m30s", 90), (7, 7), ("0s", None),
     ("-3s", None), ("NaN", None), ("inf", None), ("soon", None), (None, None), ([], None),
     ("9" * 400 + "s", None), (1e300, 366 * 86400)],
)  # fmt: skip
def test_googles_delay_is_read_and_nonsense_is_not(delay, secs):
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    body = [said("quota", code=429, status="RESOURCE_EXHAUSTED", details=details)]
    found = failure(refused(429, body), params=NodeCompletionParameters(retry=0))
    assert found.error.retry_after_secs == (pytest.approx(secs) if secs else None)


@pytest.mark.parametrize(
    ("headers", "secs"),
    [({"retry-after": "6m0s"}, 360), ({"retry-after": "20s"}, 20), ({"retry-after-ms": "1.5"}, 0.0015),
     ({"retry-after": "7"}, 7), ({"retry-after": "nan"}, 2), ({"retry-after": "1e30"}, 2), ({"retry-after": "9" * 30}, 366 * 86400)],
)  # fmt: skip
def test_a_header_says_more_than_the_message(headers, secs):
    reply = refused(429, said("try again in 2s"), headers)
    found = failure(reply, params=NodeCompletionParameters(retry=0))
    assert found.error.retry_after_secs == pytest.approx(secs)


# Pages.


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<!doctype html><html><head><title>Welcome to nginx!</title>", "text/html", "nginx"),
        (b"\n<html><body>Hello</body></html>", "", "Hello"),
        (b'<?xml version="1.0"?><Error>no</Error>', "application/xml", "Error"),
        (b"Ollama is running", "text/plain; charset=utf-8", "Ollama is running"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
def test_a_page_in_place_of_an_answer_points_at_the_base_url(body, kind, words, mode, wire):
    headers = {"content-type": kind} if kind else {"content-type": "application/octet-stream"}
    found = failure(ScriptedReply(pieces=(body,), headers=headers), mode, wire)
    assert (found.kind, found.requests) == ("MalformedResponseError", 1)
    assert words in str(found.error)
    assert "base_url" in str(found.error)


def test_json_that_is_cut_is_no_page():
    headers = {"content-type": "text/plain"}
    found = failure(ScriptedReply(pieces=(b'{"choices": [',), headers=headers))
    assert found.kind == "MalformedResponseError"
    assert "base_url" not in str(found.error)
