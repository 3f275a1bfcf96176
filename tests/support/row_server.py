"""A loopback server in a thread of its own for rows that several processes ask about.

Use it for jobs: it bills every answer, may keep to a rate, and answers in capitals what the last
message says. A row whose text begins with "bad" gets a 400, and one with "hang" no answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

from bulk_server import answer
from threaded_server import ScriptedExchange, ThreadedServer

from minillmlib import ChatNode, GeneratorInfo, TokenPrice

ROW_USD = 0.0002  # 100 tokens in, 20 out
PROMPT = ChatNode.root("Be brief.").add_user("{text}")


class RowServer(ThreadedServer):
    """Answers `rate` requests a second, by a bucket of one second, and refuses others with 429.

    `billed` counts the answers to each text, and `taken` and `refused` are the times of requests.
    """

    def __init__(self, *, rate: float | None = None, secs: float = 0.02) -> None:
        super().__init__(())
        self.rate, self.secs = rate, secs
        self.billed: Counter[str] = Counter()
        self.taken: list[float] = []
        self.refused: list[float] = []
        self.in_flight = self.most = 0
        self._level, self._filled_at = rate or 0.0, time.monotonic()

    @property
    def generator(self) -> GeneratorInfo:
        """A model here, of which a row costs `ROW_USD`."""
        return GeneratorInfo.custom("t", self.url, "m").with_token_price(TokenPrice(1, 5))

    async def _play(self, exchange: ScriptedExchange) -> None:
        said = json.loads(exchange.body)["messages"][-1]["content"]
        if not self._take():
            self.refused.append(time.monotonic())
            await exchange.answer(b'{"error": {"message": "slow down"}}', "429 Busy")
            return
        self.taken.append(time.monotonic())
        for word, status in (("bad", "400 Bad"), ("locked", "401 Unauthorized")):
            if said.startswith(word):
                await exchange.answer(b'{"error": {"message": "no such row"}}', status)
                return
        if said.startswith("hang"):
            await exchange.silence()
            return
        self.billed[said] += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.secs)
            await exchange.answer(json.dumps(answer(said.upper())).encode())
        finally:
            self.in_flight -= 1

    def _take(self) -> bool:
        if self.rate is None:
            return True
        now = time.monotonic()
        self._level = min(self.rate, self._level + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
