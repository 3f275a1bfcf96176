"""Requests about batches, and replies that real vendors sent, in `golden/batches`."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    MalformedResponseError,
    OpenAiProvider,
    OpenRouterProvider,
    PromptCache,
    ResponsesProvider,
)
from minillmlib.protocols.batches.base import ApiRequest, BatchApi, BatchStatus, RowResult
from minillmlib.protocols.batches.openai import OpenAiBatches
from minillmlib.protocols.chat_completions.dialect import ChatDialect, MessageCapabilities

OPENAI, ANTHROPIC = OpenAiProvider.batches, AnthropicProvider.batches
OPENROUTER = OpenRouterProvider.batches
APIS = {"openai": OPENAI, "anthropic": ANTHROPIC, "openrouter": OPENROUTER}
BATCHES = GOLDEN / "batches"


def status_of(name: str):
    raw = json.loads((BATCHES / f"{name}.json").read_bytes())
    return APIS[name.partition("_")[0]].parse_status(raw)


def results_of(name: str):
    api = APIS[name.partition("_")[0]]
    lines = (BATCHES / f"{name}.jsonl").read_bytes().splitlines()
    return {result.custom_id: result for result in map(api.parse_result, lines)}


@pytest.mark.parametrize(
    ("name", "word", "has_ended", "files"),
    [
        ("openai_validating", "validating", False, 0),
        ("openai_cancelling", "cancelling", False, 0),
        ("openai_completed", "completed", True, 2),
        ("openai_completed_all_failed", "completed", True, 1),
        ("openai_expired", "expired", True, 2),
        ("anthropic_in_progress", "in_progress", False, 0),
        ("anthropic_canceling", "canceling", False, 0),
        ("anthropic_ended", "ended", True, 0),
        ("openrouter_completed", "completed", True, 0),
    ],
)
def test_the_state_of_a_batch(name, word, has_ended, files):
    status = status_of(name)
    assert (status.word, status.has_ended, status.problem) == (word, has_ended, None)
    assert len(status.result_files) == files
    assert status.created_at is not None


@pytest.mark.parametrize(
    ("counts", "total"), [(None, None), ({}, None), ({"total": 0}, None), ({"total": 3}, 3)]
)
def test_a_batch_of_openrouter_that_does_not_count_its_rows_may_have_any_number(counts, total):
    raw = json.loads((BATCHES / "openrouter_completed.json").read_bytes())
    assert OPENROUTER.parse_status(raw | {"request_counts": counts}).total == total


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/MAX", "/XX/", "/MAX/v1//", "/v1/x"])
@pytest.mark.parametrize("provider", [OpenAiProvider(), AnthropicProvider(), OpenRouterProvider()])
def test_batches_are_below_the_same_base_as_calls(provider, path):
    base = f"https://batches.example{path}"
    below = provider.endpoint_url(base).removesuffix("/chat/completions")
    assert provider.batches.batches_url(base) == f"{below}/batches"


def test_a_refused_file_names_its_lines():
    status = status_of("openai_failed_validation")
    assert "line 2: This line is not parseable" in status.problem
    assert "duplicate_custom_id" in status.problem
    assert not status.is_queue_full


def test_a_full_pool_may_be_asked_again_with_the_same_file():
    status = status_of("openai_failed_token_limit")
    assert status.is_queue_full
    assert status.file_id == "file-SampleInput0000000001"


def test_an_upload_has_an_id():
    raw = json.loads((BATCHES / "openai_file.json").read_bytes())
    assert OPENAI.parse_upload(raw) == "file-SampleInput0000000001"


def test_openais_results():
    good = results_of("openai_output")
    assert [good[name].status for name in ("book-0", "book-1")] == [200, 200]
    answer = ResponsesProvider().parse_response(json.loads(good["book-1"].body))
    assert answer.text == "South pier: 03:40."
    bad = results_of("openai_errors")
    assert bad["book-2"].status == 400
    assert b"context_length_exceeded" in bad["book-2"].body
    assert bad["book-3"].was_skipped


def test_anthropics_results():
    found = results_of("anthropic_results")
    answer = AnthropicProvider().parse_response(json.loads(found["book-0"].body))
    assert answer.text == "North pier: 03:12."
    assert (answer.usage.service_tier, answer.usage.surcharges) == ("batch", ())
    assert (found["book-2"].status, found["book-2"].request_id) == (
        400,
        "req_011SampleBatch0000000000",
    )
    assert found["book-3"].was_skipped
    assert found["book-4"].was_skipped


def test_openrouters_results():
    good, bad = status_of("openrouter_completed").rows
    assert (good.custom_id, good.status, bad.custom_id, bad.status) == (
        "book-0",
        200,
        "book-1",
        502,
    )
    answer = OpenRouterProvider().parse_response(json.loads(good.body))
    assert str(answer.usage.native_cost) == "0.000039"


@pytest.mark.parametrize("api", APIS.values(), ids=list(APIS))
@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"id": "../files", "status": "completed"},
        {"id": "b", "status": "thinking"},
        {"id": "b", "processing_status": "resting", "request_counts": {}},
        {"id": 7, "status": "completed"},
    ],
)
def test_what_is_no_state_of_a_batch_is_an_error(api, raw):
    with pytest.raises(MalformedResponseError):
        api.parse_status(raw)


@pytest.mark.parametrize("api", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(
    "line",
    [b"{", b"null", b'{"custom_id":7}', b'{"custom_id":"a","result":{"type":"odd"}}', b"\xff"],
)
def test_what_is_no_result_is_an_error(api, line):
    with pytest.raises(MalformedResponseError):
        api.parse_result(line)


def test_mistakes_of_servers_in_a_line_are_repaired():
    line = b'{"custom_id":"a","response":{"status_code":200,"body":{"x":"\\ud800","y":NaN}}}'
    assert json.loads(OPENAI.parse_result(line).body) == {
        "x": "\N{REPLACEMENT CHARACTER}",
        "y": None,
    }


# Requests.

BASE = "https://h.example/v1/"
AT = "https://h.example/v1"
LISTS = {
    "openai": f"{AT}/batches", "anthropic": f"{AT}/messages/batches", "openrouter": f"{AT}/batches",
}  # fmt: skip
ENDED = BatchStatus(id="b1", word="ended", has_ended=True, result_files=("f2", "f3"))
UPLOAD = (
    b'--minillmlib-t7\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--minillmlib-t7\r\nContent-Disposition: form-data; name="file"; filename="t7.jsonl"\r\n'
    b"Content-Type: application/jsonl\r\n\r\n{1}\n{2}\n\r\n--minillmlib-t7--\r\n"
)


def sent(url: str, method: str = "GET", body: bytes = b"", accept: str = "application/json"):
    return ApiRequest(url=url, method=method, body=body, accept=accept)


@pytest.mark.parametrize("vendor", APIS)
def test_batches_are_listed_and_polled_at_their_addresses(vendor):
    api, url = APIS[vendor], LISTS[vendor]
    after = "after_id" if vendor == "anthropic" else "after"
    assert api.batches_url(BASE) == url
    assert api.poll(BASE, "b1") == sent(f"{url}/b1")
    assert api.recent(BASE, None) == sent(f"{url}?limit=100")
    assert api.recent(BASE, "b9") == sent(f"{url}?limit=100&{after}=b9")


@pytest.mark.parametrize(
    ("vendor", "row"),
    [("openai", b'{"custom_id":"a\\"","method":"POST","url":"/v1/chat/completions","body":{"model":1}}'),
     ("anthropic", b'{"custom_id":"a\\"","params":{"model":1}}'),
     ("openrouter", b'{"custom_id":"a\\"","body":{"stop":2}}')],
)  # fmt: skip
def test_a_row_is_written_as_the_vendor_has_it(vendor, row):
    body = {"model": "m", "stop": 2} if vendor == "openrouter" else {}
    assert APIS[vendor].encode_row('a"', body, b'{"model":1}') == row


def test_openai_is_sent_a_file_from_which_it_makes_a_batch():
    upload = OPENAI.upload(BASE, [b"{1}", b"{2}"], "t7")
    kind = "multipart/form-data; boundary=minillmlib-t7"
    assert upload == ApiRequest(url=f"{AT}/files", method="POST", body=UPLOAD, content_type=kind)
    assert OPENAI.delete_upload(BASE, "f1") == sent(f"{AT}/files/f1", "DELETE")
    created = OPENAI.create_from(BASE, "f1", "t7")
    assert created == sent(LISTS["openai"], "POST", created.body)
    assert json.loads(created.body) == {
        "input_file_id": "f1", "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"minillmlib_part": "t7"},
    }  # fmt: skip
    assert OPENAI.results(BASE, ENDED) == [
        sent(f"{AT}/files/{name}/content", accept="*/*") for name in ("f2", "f3")
    ]


def test_the_others_are_sent_the_rows_with_the_creation():
    body = b'{"requests":[{1},{2}]}'
    assert ANTHROPIC.create(BASE, "m", [b"{1}", b"{2}"], "t7") == sent(
        LISTS["anthropic"], "POST", body
    )
    head = b'{"endpoint":"/v1/chat/completions","model":"m","completion_window":"24h",'
    assert OPENROUTER.create(BASE, "m", [b"{1}", b"{2}"], "t7") == sent(
        LISTS["openrouter"], "POST", head + body[1:]
    )
    for api in (ANTHROPIC, OPENROUTER):
        assert api.upload(BASE, [b"{1}"], "t7") is None


def test_results_are_asked_for_at_the_generators_own_server():
    url = f"{LISTS['anthropic']}/b1/results"
    assert ANTHROPIC.results(BASE, ENDED) == [sent(url, accept="*/*")]
    url = f"{LISTS['openrouter']}/b1/results?limit=1000"
    assert OPENROUTER.results(BASE, ENDED) == [sent(url)]
    for rows in ((), (RowResult(custom_id="a"),)):
        inline = BatchStatus(id="b1", word="completed", has_ended=True, rows=rows)
        assert OPENROUTER.results(BASE, inline) == []


@pytest.mark.parametrize(
    ("raw", "is_id"),
    [({"id": "f-1"}, True), ({"id": "../f"}, False), ({"id": None}, False), ({}, False),
     (["f-1"], False), (None, False)],
)  # fmt: skip
def test_the_id_of_a_file_can_stand_in_an_address(raw, is_id):
    if is_id:
        assert OPENAI.parse_upload(raw) == raw["id"]
        return
    with pytest.raises(MalformedResponseError, match="where a batch has an id"):
        OPENAI.parse_upload(raw)


FACTS = ("max_rows", "max_bytes", "price_share", "service_tier", "has_pages", "has_tags",
         "bills_failures")  # fmt: skip


@pytest.mark.parametrize(
    ("api", "facts"),
    [(BatchApi(), (50_000, 190_000_000, Decimal("0.5"), None, False, False, True)),
     (OPENAI, (50_000, 190_000_000, Decimal("0.5"), None, False, True, True)),
     (ANTHROPIC, (100_000, 240_000_000, Decimal("0.5"), "batch", False, False, False)),
     (OPENROUTER, (5_000, 190_000_000, Decimal("0.5"), None, True, False, True))],
)  # fmt: skip
def test_the_limits_and_prices_of_batches(api, facts):
    assert tuple(getattr(api, name) for name in FACTS) == facts


def test_batch_wires_are_equal_if_they_are_of_one_kind_and_endpoint():
    one, same, other = OpenAiBatches("/x"), OpenAiBatches("/x"), OpenAiBatches("/y")
    assert (one == same, one == other, one == ANTHROPIC, type(ANTHROPIC)() == ANTHROPIC) == (
        True, False, False, True,
    )  # fmt: skip
    assert len({one, same, ANTHROPIC, type(ANTHROPIC)()}) == 2
    assert (repr(one), repr(ANTHROPIC)) == ("OpenAiBatches('/x')", "AnthropicBatches()")
    assert OpenAiBatches().endpoint == "/v1/chat/completions"


def test_a_wire_of_ones_own_says_what_it_lacks():
    api = BatchApi()
    lacking = [
        lambda: api.encode_row("a", {}, b""), lambda: api.delete_upload("b", "f"),
        lambda: api.create("b", "m", [], "t"), lambda: api.create_from("b", "f", "t"),
        lambda: api.parse_status({}), lambda: api.results("b", ENDED), lambda: api.parse_result(b""),
        lambda: api.parse_page(sent("u"), {}),
    ]  # fmt: skip
    for call in lacking:
        with pytest.raises(NotImplementedError):
            call()


@pytest.mark.parametrize("kind", [ApiRequest, RowResult, BatchStatus, PromptCache, ChatDialect,
                                  MessageCapabilities])  # fmt: skip
def test_these_values_have_their_fields_by_name_and_stay_as_they_are(kind):
    names = {"url": "u", "custom_id": "a", "id": "b", "word": "w", "has_ended": True}
    value = kind(**{name: names[name] for name in names if name in kind.__struct_fields__})
    with pytest.raises(TypeError):
        kind("one", "by", "place")
    with pytest.raises(AttributeError):
        setattr(value, kind.__struct_fields__[0], "another")


def test_a_request_is_plain_unless_it_says_otherwise():
    assert ApiRequest(url="u") == ApiRequest(
        url="u", method="GET", body=b"", content_type="application/json", accept="application/json"
    )


def test_a_row_that_was_not_told_about_was_neither_answered_nor_skipped():
    assert RowResult(custom_id="a") == RowResult(
        custom_id="a", status=0, body=b"", request_id=None, was_skipped=False
    )
    state = BatchStatus(id="b", word="w", has_ended=False)
    assert (state.created_at, state.total, state.tag, state.problem) == (None, None, None, None)
    assert (state.is_queue_full, state.file_id, state.result_files, state.rows) == (
        False, None, (), None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line", [b'{"custom_id":"a","response":{"status_code":"x"}}', b"[" * 5000, b'{"custom_id":1e999}']
)  # fmt: skip
def test_a_line_of_another_shape_is_shown_in_the_error(line):
    with pytest.raises(MalformedResponseError, match=r"(?:unexpected shape|invalid JSON) \("):
        OPENAI.parse_result(line)
