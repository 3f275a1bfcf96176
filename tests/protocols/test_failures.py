"""What servers report when they fail, in every dialect, and which error it becomes."""

from __future__ import annotations

import datetime as dt
import pickle
from email.utils import format_datetime

import msgspec
import pytest

import minillmlib
from minillmlib import ApiError, ChatNode, GeneratorInfo, MiniLLMError
from minillmlib.protocols.errors import error_from_page, error_from_reply
from minillmlib.testing import ScriptedReply, ScriptedTransport

ROOT = ChatNode.root("s")


def failure(body: bytes | str, status: int, headers: dict[str, str] | None = None) -> ApiError:
    data = body.encode() if isinstance(body, str) else body
    reply = ScriptedReply(pieces=(data,), status=status, headers=headers or {})
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    with pytest.raises(MiniLLMError) as caught:
        minillmlib.run(ROOT.chat("u", generator.with_transport(ScriptedTransport([reply]))))
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "is_retryable"),
    [
        (400, "BadRequestError", False), (401, "AuthenticationError", False),
        (402, "BillingError", False), (403, "PermissionDeniedError", False),
        (404, "NotFoundError", False), (408, "ServerTimeoutError", True),
        (409, "ConflictError", True), (412, "BadRequestError", False),
        (413, "RequestTooLargeError", False), (418, "BadRequestError", False),
        (422, "BadRequestError", False), (429, "RateLimitError", True),
        (500, "ServerError", True), (502, "ServerError", True), (503, "OverloadedError", True),
        (504, "ServerTimeoutError", True), (524, "ServerTimeoutError", True),
        (529, "OverloadedError", True), (599, "ServerError", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", ['{"error":{"message":"why"}}', "", "<html><title>why</title>"])
def test_a_status_is_enough_to_know_the_kind(status, kind, is_retryable, body):
    error = failure(body, status)
    assert (type(error).__name__, error.status, error.is_retryable) == (kind, status, is_retryable)
    assert str(status) in str(error)
    assert not body or "why" in str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error":"plain text"}', "plain text"),
        ('{"error":"msg","error_type":"validation"}', "msg"),
        ('{"object":"error","message":"flat","code":400}', "flat"),
        ('{"detail":"Not here"}', "Not here"),
        ('{"detail":[{"loc":["body","messages",0],"msg":"Field required"}]}',
         "body.messages.0: Field required"),
        ('{"object":"error","message":{"detail":[{"loc":["body","x"],"msg":"bad"}]}}',
         "body.x: bad"),
        ('[{"error":{"code":400,"message":"array","status":"INVALID_ARGUMENT"}}]', "array"),
        ('{"type":"error","error":{"type":"invalid_request_error","message":"claude"}}', "claude"),
        ('{"error":{"message":"outer","metadata":{"raw":"inner","provider_name":"P"}}}',
         "outer (upstream: inner)"),
        ("Internal Server Error", "Internal Server Error"),
        ("<html><head><title>\n 502 Bad\x1b[31m Gateway </title>", "an HTML page: 502 Bad"),
        ("null", "None"), ("[]", "[]"), ("3", "3"), ('{"error":{}}', "{}"),
        ('{"error":{"message":{"deep":1}}}', "deep"),
    ],
)  # fmt: skip
def test_the_servers_words_are_found_in_every_shape(body, said):
    error = failure(body, 400)
    assert said in str(error)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("code", "number"), [("'server_error'", None), ("502", 502), ("'429'", 429), ("null", None)]
)
def test_an_error_inside_a_success_is_known_by_its_own_code(code, number):
    body = '{"error":{"message":"x","code":' + code.replace("'", '"') + "}}"
    kind = "RateLimitError" if number == 429 else "ServerError"
    assert type(failure(body, 200)).__name__ == kind


@pytest.mark.parametrize("more", ["", ",{}", ",1", ',{"error":null}', ',{"error":{"code":503}}'])
def test_a_list_in_a_success_is_the_error_that_it_begins_with(more):
    body = '[{"error":{"message":"x","code":429}}' + more + "]"
    assert type(failure(body, 200)).__name__ == "RateLimitError"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, '"type":"api_error"', "AuthenticationError"),
        (429, '"type":"api_error"', "RateLimitError"),
        (503, '"type":"server_error"', "OverloadedError"),
        (400, '"type":"server_error"', "BadRequestError"),
        (404, '"code":"timeout"', "NotFoundError"),
        (429, '"type":"insufficient_quota"', "BillingError"),
        (429, '"message":"You reached your monthly spend limit"', "BillingError"),
        (400, '"message":"error loading model: no such file"', "BadRequestError"),
        (200, '"type":"invalid_request_error"', "BadRequestError"),
        (200, '"code":"unsupported_value"', "BadRequestError"),
        (200, '"type":"api_error"', "ServerError"), (200, '"type":"timeout_error"', "ServerTimeoutError"),
        (200, '"code":3230', "ServerError"), (200, '"code":true', "ServerError"),
    ],
)  # fmt: skip
def test_a_status_says_more_than_a_general_word_and_a_special_word_more_than_a_status(
    status, error, kind
):
    assert type(failure('{"error":{' + error + "}}", status)).__name__ == kind


@pytest.mark.parametrize(
    ("headers", "secs"),
    [
        ({"retry-after": "7"}, 7), ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25), ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "-3"}, None), ({"retry-after": "0"}, None),
        ({"retry-after": "\u0663"}, None), ({"retry-after": "1_0"}, None),
        ({"retry-after": "+5"}, None), ({"retry-after": "5 5"}, None), ({"retry-after": " 5 "}, 5),
        ({"retry-after": "1e1"}, None), ({"retry-after": "\uff15"}, None),
        ({"retry-after": "0x5"}, None), ({"retry-after": "Infinity"}, None),
        ({"retry-after-ms": "1_0"}, None), ({"retry-after-ms": "\u0663"}, None),
        ({"retry-after-ms": "+9"}, None), ({"retry-after-ms": "1e3"}, None),
        ({"retry-after": "nan"}, None), ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None), ({"retry-after": ""}, None), ({}, None),
    ],
)  # fmt: skip
def test_the_wait_a_server_asks_for_is_read_and_nonsense_is_not(headers, secs):
    assert failure("{}", 429, headers).retry_after_secs == secs


def test_the_wait_may_be_a_date():
    date = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90)
    error = failure("{}", 429, {"retry-after": format_datetime(date, usegmt=True)})
    assert 80 < error.retry_after_secs < 91


@pytest.mark.parametrize(
    "body",
    ["", " \n", "null", "[]", "{}", '{"choices":null}', '{"choices":[]}', "3", '"text"',
     '{"choices":[{}]}', '{"choices":[{"message":3}]}', '{"choices":{"a":1}}', "<html></html>",
     '[{},{"error":{"code":429}}]', "[" * 100_000, '{"choices":[{"message":{"content":3}}]}', "\xff\xfe", "{" * 1000],
)  # fmt: skip
@pytest.mark.parametrize("claude", [False, True], ids=["chat completions", "messages"])
def test_a_success_that_is_no_completion_is_malformed(body, claude):
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    if claude:
        generator = generator.with_provider(minillmlib.AnthropicProvider())
    reply = ScriptedReply(pieces=(body.encode("latin-1"),), headers={})
    with pytest.raises(minillmlib.MalformedResponseError) as caught:
        minillmlib.run(ROOT.chat("u", generator.with_transport(ScriptedTransport([reply]))))
    assert not caught.value.is_retryable
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "event",
    [b"{", b"[1]", b"3", b'"text"', b'{"choices":[{"delta":{"content":3}}]}', b"[" * 100_000,
     b'{"choices":{"index":0}}', b"\xff"],
)  # fmt: skip
def test_an_event_that_cannot_be_read_is_an_error_and_never_skipped(event):
    good = b'data: {"choices":[{"index":0,"delta":{"content":"ok"}}]}\n\n'
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    reply = ScriptedReply.events(good + b"data: " + event + b"\n\n" + end)
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    stream = ROOT.chat_streaming("u", generator.with_transport(ScriptedTransport([reply])))
    with pytest.raises(minillmlib.MalformedResponseError) as caught:
        list(minillmlib.iterate(stream))
    assert caught.value.partial == "ok"


@pytest.mark.parametrize("keep_alive", [b"data:\n\n", b"data: : ping\n\n", b": ping\n\n",
                                        b"event: ping\ndata: {}\n\n"])  # fmt: skip
def test_keep_alives_say_nothing(keep_alive):
    end = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
    reply = ScriptedReply.events(keep_alive + end)
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    stream = ROOT.chat_streaming("u", generator.with_transport(ScriptedTransport([reply])))
    assert "".join(chunk.delta for chunk in minillmlib.iterate(stream)) == "ok"


def test_an_error_event_is_an_error_in_any_dialect():
    reply = ScriptedReply.events(b'event: error\ndata: {"error":"model crashed"}\n\n')
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    stream = ROOT.chat_streaming("u", generator.with_transport(ScriptedTransport([reply])))
    with pytest.raises(minillmlib.ServerError, match="model crashed"):
        list(minillmlib.iterate(stream))


def test_an_end_marker_without_reason_is_enough_after_text_but_not_without():
    done = b"data: [DONE]\n\n"
    said = b'data: {"choices":[{"index":0,"delta":{"content":"ok"}}]}\n\n'
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    transport = ScriptedTransport([ScriptedReply.events(said + done), ScriptedReply.events(done)])
    generator = generator.with_transport(transport)
    stream = ROOT.chat_streaming("u", generator)
    list(minillmlib.iterate(stream))
    assert stream.response.finish_reason is minillmlib.FinishReason.UNKNOWN
    with pytest.raises(minillmlib.IncompleteStreamError):
        list(minillmlib.iterate(ROOT.chat_streaming("u", generator)))


def test_text_after_the_end_marker_is_not_part_of_the_answer():
    said = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
    reply = ScriptedReply.events(said + b"data: [DONE]\n\n" + said)
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    stream = ROOT.chat_streaming("u", generator.with_transport(ScriptedTransport([reply])))
    assert "".join(chunk.delta for chunk in minillmlib.iterate(stream)) == "ok"


@pytest.mark.parametrize(
    "usage",
    ['{"prompt_tokens":-1,"completion_tokens":1}', '{"prompt_tokens":true}', '"many"', "3", "[]",
     '{"prompt_tokens":"3","completion_tokens":1}', "{}", "null",
     '{"prompt_tokens":1e30,"completion_tokens":1}',
     '{"prompt_tokens":99999999999999999999,"completion_tokens":1}',
     '{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":6}}'],
)  # fmt: skip
def test_counts_that_cannot_be_true_are_dropped_and_the_cost_is_unknown(usage):
    choice = '{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]'
    reply = ScriptedReply.json(f'{choice},"usage":{usage}}}'.encode())
    price = minillmlib.TokenPrice(1, 1)
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_token_price(price)
    call = ROOT.chat("u", generator.with_transport(ScriptedTransport([reply])))
    response = minillmlib.run(call).response
    assert response.usage is None
    assert response.cost.resolution is minillmlib.CostResolution.UNKNOWN


def test_counts_sent_before_the_finish_are_not_the_bill():
    start = {"type": "message_start", "message": {"id": "1", "model": "m", "usage":
             {"input_tokens": 9, "output_tokens": 1}}}  # fmt: skip
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    events = (b"data: " + msgspec.json.encode(event) + b"\n\n" for event in (start, end))
    transport = ScriptedTransport([ScriptedReply.events(*events)])
    generator = GeneratorInfo.anthropic("m").with_api_key("k").with_transport(transport)
    stream = ROOT.chat_streaming("u", generator)
    list(minillmlib.iterate(stream))
    assert stream.response.usage is None


def test_the_first_of_two_finish_reasons_counts_if_no_content_follows_it():
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":"%b"}]}\n\n'
    reply = ScriptedReply.events(event % (b"a", b"length") + event % (b"", b"stop"))
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    stream = ROOT.chat_streaming("u", generator.with_transport(ScriptedTransport([reply])))
    list(minillmlib.iterate(stream))
    assert stream.response.finish_reason is minillmlib.FinishReason.LENGTH


def test_tokens_outside_completion_tokens_are_found_by_the_total():
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 42}
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    reply = ScriptedReply.json({"choices": [choice], "usage": usage})
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    call = ROOT.chat("u", generator.with_transport(ScriptedTransport([reply])))
    assert minillmlib.run(call).response.usage.completion_tokens == 32


def test_errors_can_be_pickled_with_their_facts():
    error = failure('{"error":{"message":"x","code":"y"}}', 429, {"retry-after": "7"})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert (again.status, again.code, again.retry_after_secs) == (429, "y", 7)


KEY = "sk-canary-" + "0123456789" * 9


@pytest.mark.parametrize("padding", [0, 90, 150, 195, 1900, 1950, 1990])
@pytest.mark.parametrize(
    ("status", "body"),
    [(401, "{}"), (401, '{{"error":{{"message":"{}","code":"{}"}}}}'), (200, '{{"choices":"{}"}}'),
     (500, '{{"detail":[{{"loc":["{}"],"msg":"{}"}}],"request_id":"{}"}}'), (200, "<html>{}")],
)  # fmt: skip
def test_a_key_is_cut_out_before_a_text_is_shortened(padding, status, body):
    echo = "x" * padding + KEY
    reply = ScriptedReply(pieces=(body.replace("{}", echo).replace("{{", "{").replace("}}", "}").encode(),),
                          status=status)  # fmt: skip
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_api_key(KEY)
    with pytest.raises(MiniLLMError) as caught:
        minillmlib.run(ROOT.chat("u", generator.with_transport(ScriptedTransport([reply]))))
    shown = repr(caught.value) + repr(vars(caught.value))
    assert "sk-canary" not in shown
    assert "0123456789" not in shown


@pytest.mark.parametrize("depth", range(900, 1010, 5))
@pytest.mark.parametrize("status", [200, 400])
def test_json_of_any_depth_is_an_error_of_ours(depth, status):
    for body in ("[" * depth + "]" * depth, '{"error":' * depth + "1" + "}" * depth):
        assert isinstance(failure(body, status), MiniLLMError)


@pytest.mark.parametrize(
    "event",
    [{"type": "unknown", "message": "text"}, {"type": "unknown", "delta": "x"},
     {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "text": 3}},
     {"type": "content_block_start", "index": 0, "content_block": {"type": "new", "text": {}}},
     {"type": "message_start", "message": {"id": None, "model": None}}, {"type": "ping"}],
)  # fmt: skip
def test_what_anthropic_may_add_later_does_not_break_an_answer(event):
    said = {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "text_delta", "text": "ok"},
    }
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    events = (b"data: " + msgspec.json.encode(item) + b"\n\n" for item in (event, said, end))
    transport = ScriptedTransport([ScriptedReply.events(*events)])
    generator = GeneratorInfo.anthropic("m").with_api_key("k").with_transport(transport)
    chunks = minillmlib.iterate(ROOT.chat_streaming("u", generator))
    assert "".join(chunk.delta for chunk in chunks) == "ok"


def test_input_counts_that_the_second_record_leaves_out_are_kept_from_the_first():
    start = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 100, "output_tokens": 1}},
    }
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
           "usage": {"cache_read_input_tokens": 5000, "output_tokens": 7}}  # fmt: skip
    events = (b"data: " + msgspec.json.encode(item) + b"\n\n" for item in (start, end))
    transport = ScriptedTransport([ScriptedReply.events(*events)])
    generator = GeneratorInfo.anthropic("m").with_api_key("k").with_transport(transport)
    stream = ROOT.chat_streaming("u", generator)
    list(minillmlib.iterate(stream))
    usage = stream.response.usage
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (100, 5000)
    assert usage.completion_tokens == 7


@pytest.mark.parametrize(
    ("provider", "usage"),
    [(minillmlib.GenericProvider(), {"prompt_tokens": 10}),
     (minillmlib.GenericProvider(), {"prompt_tokens": 10, "completion_tokens": None}),
     (minillmlib.AnthropicProvider(), {"output_tokens": 5})],
)  # fmt: skip
def test_a_count_that_is_missing_is_unknown_and_not_zero(provider, usage):
    body = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": usage,
            "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"}  # fmt: skip
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_provider(provider)
    priced = generator.with_token_price(minillmlib.TokenPrice(1, 1))
    call = ROOT.chat("u", priced.with_transport(ScriptedTransport([ScriptedReply.json(body)])))
    assert minillmlib.run(call).response.cost.resolution is minillmlib.CostResolution.UNKNOWN


def test_an_absurd_native_cost_is_not_believed():
    for cost in ("9e999999", -1, True, "x", 1e300):
        body = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": cost}}  # fmt: skip
        transport = ScriptedTransport([ScriptedReply.json(body)])
        generator = GeneratorInfo.openrouter("m").with_api_key("k").with_transport(transport)
        outcome = minillmlib.run(ROOT.chat("u", generator)).response.cost
        assert outcome.resolution is minillmlib.CostResolution.UNPRICED


def test_an_empty_refusal_is_none():
    message = {"content": "ok", "refusal": ""}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    call = ROOT.chat("u", generator.with_transport(ScriptedTransport([ScriptedReply.json(body)])))
    response = minillmlib.run(call).response
    assert (response.refusal, response.finish_reason) == (None, minillmlib.FinishReason.STOP)


class Careless(minillmlib.Provider):
    """A provider that trusts what the server sends."""

    def parse_response(self, raw):
        return minillmlib.CompletionResponse(content=raw["output"]["text"])


@pytest.mark.parametrize("raw", [{}, {"output": None}, {"output": []}, [], 3])
def test_a_careless_provider_still_fails_with_our_error(raw):
    transport = ScriptedTransport([ScriptedReply.json(raw)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_provider(Careless())
    with pytest.raises(minillmlib.MalformedResponseError, match="could not read"):
        minillmlib.run(ROOT.chat("u", generator.with_transport(transport)))


# Bounds of what is read and shown.

TITLE = b"<title>abc</title>"
TOO_LONG, WAIT, SUBSCRIBED = "prompt is too long", " try again in 7s", " oauth"


@pytest.mark.parametrize(("size", "said"), [(65536, "an HTML page: abc"), (65537, "(no text)")])  # fmt: skip
def test_a_title_is_looked_for_in_the_first_64_kib(size, said):
    assert str(failure(TITLE.rjust(size), 502)).endswith(f"with status 502: {said}")


@pytest.mark.parametrize(("chars", "is_read"), [(8000, True), (8001, False)])
def test_words_are_looked_for_in_the_first_8000_characters(chars, is_read):
    def refused(status: int, words: str) -> ApiError:
        return failure(msgspec.json.encode({"message": words.rjust(chars, "z")}), status)

    kind = "ContextLengthError" if is_read else "BadRequestError"
    assert type(refused(400, TOO_LONG)).__name__ == kind
    assert refused(429, WAIT).retry_after_secs == (7 if is_read else None)
    assert ("subscription tokens" in str(refused(401, SUBSCRIBED))) == is_read


@pytest.mark.parametrize(("chars", "end"), [(1999, "m"), (2000, "m"), (2001, "m…"), (9000, "m…")])
def test_2000_characters_of_a_message_are_shown(chars, end):
    text = str(failure(msgspec.json.encode({"message": "m" * chars}), 400))
    start = "the server reported an error with status 400: "
    assert text == start + "m" * (min(chars, 2000) - 1) + end


@pytest.mark.parametrize(("size", "is_read"), [(1024 * 1024, True), (1024 * 1024 + 1, False)])
def test_an_event_of_a_refusal_is_read_up_to_a_mebibyte(size, is_read):
    body = b'data: {"message":"so' + b'"}'.rjust(size - 20)
    assert str(failure(body, 429)).endswith("429: so") == is_read


REASONS = [
    (None, "BadRequestError", 400, False), (" (why)", "BadRequestError", 400, True),
    (" (why)", "BadRequestError", 422, True), (" (why)", "NotFoundError", 404, False),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "kind", "status", "is_told"), REASONS)
def test_what_is_known_of_a_refused_request_is_told_with_a_bad_request_only(
    reason, kind, status, is_told
):
    error = error_from_reply(status, {}, b'{"message":"No."}', lambda: reason and reason[2:-1])
    assert type(error).__name__ == kind
    assert str(error).endswith("No. (why)") == is_told
    if kind == "BadRequestError" and not is_told:
        assert str(error) == "the server reported an error with status 400: No."


PAGES = [
    ({}, b"<html><title>Hi</title>", "an HTML page: Hi"), ({}, b" \n<p>Hi</p>", "a text: <p>Hi</p>"),
    ({"content-type": "TEXT/HTML"}, b"Hi", "a text: Hi"),
    ({"content-type": "text/plain; charset=x"}, b"Hi", "a text: Hi"), ({"content-type": "text/plain"}, b"", "a text: "),
    ({"content-type": "text/plain"}, b' "Hi"', None), ({"content-type": "text/plain"}, b"[", None),
    ({"content-type": "text/plain"}, b"{", None), ({"content-type": "text/html"}, b"{}", None),
    ({"content-type": "application/json"}, b"Hi", None), ({}, b"Hi", None), ({}, b"", None),
    ({"content-type": "a/text/html"}, b"Hi", None),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "body", "page"), PAGES)
def test_a_page_for_people_is_told_from_a_body_for_programs(headers, body, page):
    error = error_from_page(headers, body)
    assert (error and str(error)) == (page and (
        f"the server answered with {page}; check that base_url is the address of an API, which "
        "often ends in /v1"
    ))  # fmt: skip
