"""Jobs whose model is in memory and goes with them, so that no test needs a socket.

Use them where the server is of no interest; `row_server` has one for several processes.
"""

from __future__ import annotations

from minillmlib import (
    Bulk,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
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
