"""Replies about batches that real vendors sent, in `golden/batches`."""

from __future__ import annotations

import json

import pytest

from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    MalformedResponseError,
    OpenAiProvider,
    OpenRouterProvider,
    ResponsesProvider,
)

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
