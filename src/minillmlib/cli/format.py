"""Formats texts of models, token counts, costs and errors for the terminal."""

from __future__ import annotations

import re

from minillmlib import CompletionResponse, CostTotal, FinishReason
from minillmlib.json_value import plural
from minillmlib.types.costs import total_words

# Terminals obey control characters, and bidi controls reorder the text that a person reads.
_KEPT = "\n\t"
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_BIDI_CONTROLS = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*_CONTROLS, *_BIDI_CONTROLS)
    if chr(code) not in _KEPT
}

_NOTICES = {
    FinishReason.LENGTH: "the answer was cut at its length limit",
    FinishReason.CONTENT_FILTER: "the answer was refused or filtered",
    FinishReason.ERROR: "the server broke the answer off",
}

# Advice of the library that names Python, and its words on the command line.
_ADVICE = (
    (re.compile(r",? or [\w ]*with_api_key\(\.\.\.\)"), ", or name another with --key-env"),
    (re.compile(r"; use with_api_key$"), "; name the variable of the key with --key-env"),
    (
        re.compile(r"\bcheck that a key is set, and\b"),
        "check that a key is set, or name its variable with --key-env, and",
    ),
    (re.compile(r"; raise \w+ of the generator's limits[^;]*"), ""),
    (re.compile(r"; `partial` of this error [^;]*"), ""),
    (re.compile(r"\braise (?:progress_)?timeout_secs\b"), "raise --timeout"),
    (re.compile(r"\b(and the|set|that) base_url\b"), r"\1 --base-url"),
    (re.compile(r"\bthe base_url must\b"), "the base URL must"),
    (re.compile(r", or, [\w ,]+, replace\(allow_http=True\)"), ", or a tunnel to this machine"),
    (re.compile(r": make room, or attach another file"), ": make room, or /save it elsewhere"),
    (
        re.compile(r": attach another file, or move that one away"),
        ": move that one away, or /save it elsewhere",
    ),
    (re.compile(r", or with_proxy\(None\) goes without"), ", or be unset"),
    (re.compile(r", in with_proxy or in the environment"), ", in the environment"),
    (
        re.compile(r", go without by with_proxy\(None\) or NO_PROXY, or send .*"),
        ", or set NO_PROXY",
    ),
    (re.compile(r"; see set_format_kwarg .*"), "; the command line has no values for them"),
    (
        re.compile(r"; load it with ChatNode\.from_thread_file"),
        ", which --save does not continue; name another file",
    ),
    (re.compile(r"; load it with ChatNode\.load_tree"), ", and damaged"),
    (re.compile(r"\b(raise|lower) max_tokens\b"), r"\1 --max-tokens"),
    (re.compile(r"[\w ]+ GeneratorInfo\.custom\(\.\.\.\)"), " choose another model with --model"),
    (re.compile(r"\bwritten by map_complete only\b"), "written by minillmlib run only"),
    (re.compile(r"\bbatch=True\b"), "--batch"),
    (re.compile(r"\bretry_failed=True\b"), "--retry-failed"),
    (re.compile(r"\ba price \(with_token_price\)"), "a price (--price)"),
    (re.compile(r"GeneratorInfo\.local\('([^']*)'\)"), r"--model local:\1"),
    (re.compile(r"GeneratorInfo\.(\w+)\(model\)"), r"--model \1:MODEL"),
)


def visible(text: str) -> str:
    r"""Write out every control character but the line end and the tab, like `\x1b`.

    Works character by character, so a text may be shown in pieces.
    """
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """Return `text` on one line, safe to show."""
    return visible(" ".join(text.split()))


def name_options(message: str) -> str:
    """Replace the Python methods that an error message recommends by options of the command."""
    for pattern, words in _ADVICE:
        message = pattern.sub(words, message)
    return message


def closing_line(response: CompletionResponse) -> str:
    """Return the counts and the cost of an answer, and who gave it and why it ended, if unusual."""
    cost = total_words(CostTotal.of([response.cost]))
    usage, counts = response.usage, "no token counts"
    if usage is not None:
        sides = f"{usage.prompt_tokens} in, {usage.completion_tokens} out"
        counts = f"{usage.total_tokens} {plural('token', usage.total_tokens)} ({sides})"
    return " · ".join([counts, cost, *notices(response)])


def notices(response: CompletionResponse) -> list[str]:
    """Return what is unusual about an answer: a fallback gave it, or it is not complete."""
    return list(filter(None, (_fallback_notice(response), truncation_notice(response))))


def _fallback_notice(response: CompletionResponse) -> str | None:
    """Return which generator answered, and which ones failed before."""
    errors = {f"{each.generator}:{each.model}": each.error for each in response.attempts}
    *failed, last = errors or [""]
    if not failed:
        return None
    before = ", ".join(f"{name} failed ({errors[name]})" for name in failed)
    return one_line(f"answered by {last}; {before}")


def truncation_notice(response: CompletionResponse) -> str | None:
    """Return why the answer is truncated, refused or empty, or None for a complete one."""
    if response.refusal_reason is not None:
        return f"the answer was refused: {one_line(response.refusal_reason)}"
    if response.finish_reason in _NOTICES:
        return _NOTICES[response.finish_reason]
    return None if response.text else "the answer has no text"
