"""Jobs whose model is in memory and goes with them, so that no test needs a socket.

Use them where the server is of no interest; `row_server` has one for several processes.
"""

from __future__ import annotations

from minillmlib import (
    Bulk,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    Lease,
    NodeCompletionParameters,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

PROMPT = ChatNode.root("Be brief.").add_user("{text}")
ONCE = NodeCompletionParameters(retry=0, params=CompletionParameters(max_tokens=20))
ROW_USD = "0.000035"  # 10 tokens in, 5 out


def echo(request) -> ScriptedReply:
    """Answers in capitals, refuses what begins with "bad", and locks out what begins with "locked"."""
    text = request.messages[-1].text
    for word, status in (("bad", 400), ("locked", 401), ("busy", 503)):
        if text.startswith(word):
            return ScriptedReply.error(status)
    return ScriptedReply.text(text.upper())


def generator_over(transport) -> GeneratorInfo:
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(transport)
    return generator.with_token_price(TokenPrice(1, 5))


def job_of(params=ONCE, reply=echo, **settings) -> Bulk:
    settings = {"prompt": PROMPT, "prefix": "a_"} | settings
    return Bulk(generator_over(ScriptedTransport(reply)), params, **settings)


def ask(job: Bulk, *texts: str, **options) -> list[dict]:
    return job.runtime(**options).rows([{"text": text} for text in texts])


def row(text: str, **changes) -> dict:
    """A row that was answered."""
    return {
        "text": text, "a_text": text.upper(), "a_parsed": None, "a_error": None,
        "a_cost_usd": ROW_USD, "a_cost_resolution": "resolved", "a_attempts": 1,
        "a_from_journal": False, **changes,
    }  # fmt: skip


def failed_row(text: str, error: str, **changes) -> dict:
    unasked = {"a_text": None, "a_cost_usd": "0", "a_attempts": 0, "a_error": error}
    return row(text, **unasked | changes)


class OwnBank:
    """Grants all that is asked for, after `wait_secs`, and notes its calls."""

    def __init__(self, **fields) -> None:
        self.fields = fields
        self.calls: list[tuple] = []

    def lease(self, *arguments) -> Lease:
        self.calls.append(("lease", *arguments))
        _, requests, usd, _ = arguments
        return Lease(**{"requests": requests, "usd": usd, **self.fields})

    def give_back(self, *arguments) -> None:
        self.calls.append(("give back", *arguments))

    def told(self, what: str) -> list[tuple]:
        return [call[1:] for call in self.calls if call[0] == what]
