"""A process that asks about many rows, for a test that kills it.

Run it by its path with the server's address, the journal and the number of rows. It prints the text
of each outcome as a line of JSON, and in the end what the run knows of its cost.
"""

from __future__ import annotations

import json
import sys

from minillmlib import ChatNode, GeneratorInfo, TokenPrice, iterate, map_complete


def main(url: str, journal: str, rows: int) -> None:
    generator = GeneratorInfo.custom("t", url, "m").with_token_price(TokenPrice(1, 5))
    prompt = ChatNode.root("Be brief.").add_user("Row {n}")
    items = ({"n": number} for number in range(rows))
    bulk = map_complete(items, generator, prompt=prompt, journal=journal, width=16)
    for outcome in iterate(bulk):
        print(json.dumps([outcome.index, outcome.text]), flush=True)
    print(json.dumps({"maybe_paid": bulk.maybe_paid, "earlier": str(bulk.earlier.cost)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
