"""How texts, advice and endings of answers are worded for the terminal, row by row."""

from __future__ import annotations

import sys

import pytest

from minillmlib import Attempt, AttemptOutcome, CompletionResponse, FinishReason

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

from minillmlib.cli.app import run_app
from minillmlib.cli.format import name_options, notices, one_line, truncation_notice, visible


def test_the_characters_that_are_written_out_are_these_alone():
    codes = [*range(0x3000), 0xFEFF, 0x1F600]
    shown = visible("".join(map(chr, codes)))
    written_out = {
        **{code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0))},
        **{code: f"\\u{code:04x}" for code in (
            0x61C, 0x200E, 0x200F, 0x202A, 0x202B, 0x202C, 0x202D, 0x202E,
            0x2066, 0x2067, 0x2068, 0x2069)},
    }  # fmt: skip
    assert shown == "".join(written_out.get(code, chr(code)) for code in codes)


def test_one_line_has_single_spaces():
    assert one_line(" a\n\tb  c\r\n") == "a b c"


ADVICE = [
    ("no API key: set the environment variable X, or use with_api_key(...); nothing was sent",
     "no API key: set the environment variable X, or name another with --key-env; nothing was "
     "sent"),
    ("it is not set or give one by with_api_key(...)", "it is not set, or name another with "
     "--key-env"),
    ("the base_url must not hold a password; use with_api_key",
     "the base URL must not hold a password; name the variable of the key with --key-env"),
    ("a; use with_api_key now", "a; use with_api_key now"),
    ("wrong key (check that a key is set, and that it fits)",
     "wrong key (check that a key is set, or name its variable with --key-env, and that it fits)"),
    ("too large; raise body_bytes of the generator's limits if so; b", "too large; b"),
    ("cut; `partial` of this error has the text; again", "cut; again"),
    ("late; raise timeout_secs if so", "late; raise --timeout if so"),
    ("late; raise progress_timeout_secs if so", "late; raise --timeout if so"),
    ("late; raise deadline_secs if so", "late; raise deadline_secs if so"),
    ("check the model and the base_url", "check the model and the --base-url"),
    ("set base_url, or that base_url", "set --base-url, or that --base-url"),
    ("our base_url", "our base_url"),
    ("use https, or, in a network you trust, replace(allow_http=True)",
     "use https, or a tunnel to this machine"),
    ("it is full: make room, or attach another file", "it is full: make room, or /save it "
     "elsewhere"),
    ("taken: attach another file, or move that one away",
     "taken: move that one away, or /save it elsewhere"),
    ("it must be an address, or with_proxy(None) goes without", "it must be an address, or be "
     "unset"),
    ("give it, in with_proxy or in the environment", "give it, in the environment"),
    ("use another, go without by with_proxy(None) or NO_PROXY, or send through httpx",
     "use another, or set NO_PROXY"),
    ("{a} has no value; see set_format_kwarg of a node", "{a} has no value; the command line has "
     "no values for them"),
    ("it is a thread; load it with ChatNode.from_thread_file",
     "it is a thread, which --save does not continue; name another file"),
    ("it is a journal; load it with ChatNode.load_tree", "it is a journal, and damaged"),
    ("raise max_tokens, or lower max_tokens", "raise --max-tokens, or lower --max-tokens"),
    ("not built; run your own and use GeneratorInfo.custom(...)",
     "not built; choose another model with --model"),
    ("a run is written by map_complete only", "a run is written by minillmlib run only"),
    ("ask with batch=True, or retry_failed=True", "ask with --batch, or --retry-failed"),
    ("it needs a price (with_token_price)", "it needs a price (--price)"),
    ("give GeneratorInfo.local('a b.gguf')", "give --model local:a b.gguf"),
    ("use GeneratorInfo.anthropic(model) or GeneratorInfo.openai(model)",
     "use --model anthropic:MODEL or --model openai:MODEL"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "shown"), ADVICE)
def test_advice_for_python_becomes_options(said, shown):
    assert name_options(said) == shown
    assert name_options(shown) == shown


def answered(**fields: object) -> CompletionResponse:
    return CompletionResponse(**{"content": "x", "finish_reason": FinishReason.STOP} | fields)


@pytest.mark.parametrize(
    ("fields", "notice"),
    [
        ({}, None),
        ({"content": ""}, "the answer has no text"),
        ({"content": None}, "the answer has no text"),
        ({"finish_reason": FinishReason.TOOL_CALLS}, None),
        ({"finish_reason": FinishReason.PAUSE}, None),
        ({"finish_reason": FinishReason.LENGTH, "content": ""},
         "the answer was cut at its length limit"),
        ({"finish_reason": FinishReason.CONTENT_FILTER}, "the answer was refused or filtered"),
        ({"finish_reason": FinishReason.ERROR}, "the server broke the answer off"),
        ({"finish_reason": FinishReason.CONTENT_FILTER, "refusal_reason": "No\n\x1b way"},
         "the answer was refused: No \\x1b way"),
    ],
)  # fmt: skip
def test_what_is_unusual_about_an_answer(fields, notice):
    assert truncation_notice(answered(**fields)) == notice
    assert notices(answered(**fields)) == ([] if notice is None else [notice])


def attempt(generator: str, error: str | None) -> Attempt:
    outcome = AttemptOutcome.ANSWERED if error is None else AttemptOutcome.FAILED
    return Attempt(
        number=1,
        url="https://x.example",
        model="m",
        sent_bytes=1,
        started_at=0.0,
        elapsed_secs=1.0,
        outcome=outcome,
        generator=generator,
        error=error,
    )


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([("a", None)], []),
        ([("a", "ServerError"), ("a", None)], []),
        ([("a", "ServerError"), ("b", None)], ["answered by b:m; a:m failed (ServerError)"]),
        ([("a", "ServerError"), ("a", "OverloadedError"), ("b", "ReadError"), ("c", None)],
         ["answered by c:m; a:m failed (OverloadedError), b:m failed (ReadError)"]),
    ],
)  # fmt: skip
def test_who_answered_is_told_if_it_was_a_fallback(attempts, words):
    response = answered(attempts=tuple(attempt(*each) for each in attempts))
    assert notices(response) == words


def test_an_unknown_option_is_safe_to_show(monkeypatch, capsys):
    given = ["minillmlib", "ask", "a\x1b[2J", "--b\x1b[2J=c\x1b[2J", "-\x07"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ending:
        run_app()
    assert ending.value.code == 2
    assert sys.argv == ["minillmlib", "ask", "a\x1b[2J", "--b\\x1b[2J=c\x1b[2J", "-\\x07"]
    assert "\x1b[2J" not in capsys.readouterr().err
