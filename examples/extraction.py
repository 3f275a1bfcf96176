"""Extraction: a typed value for each line of a file, some at a time, within a budget.

python examples/extraction.py
python examples/extraction.py my_reviews.txt --model openai:gpt-4o-mini --budget 0.50 > out.jsonl

Models other than the local one need their prices: pip install 'minillmlib[prices]'.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from minillmlib import (
    Budget,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    MiniLLMError,
    NodeCompletionParameters,
)


@dataclass
class Review:
    """The facts in one review."""

    product: str
    stars: Literal[1, 2, 3, 4, 5]


async def extract(
    lines: list[str], generator: GeneratorInfo, budget: Budget, width: int
) -> list[Review | MiniLLMError]:
    """Return a review for each line, in their order, or the error that came instead."""
    root = ChatNode.root("Extract the product and the number of stars from a review.")
    params = NodeCompletionParameters(
        params=CompletionParameters(max_tokens=100, temperature=0.0),
        budget=budget,  # reserved before each request; no request may exceed it
        retry=2,  # an answer that does not fit the type goes back to the model
    ).expecting(Review)
    places = asyncio.Semaphore(width)

    async def one(line: str) -> Review | MiniLLMError:
        async with places:
            try:
                return (await root.chat(line, generator, params)).parsed
            except MiniLLMError as error:
                return error

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one(line)) for line in lines]
    return [task.result() for task in started]


def main() -> int:
    """Read the command line, print a JSON object for each line, and report what failed."""
    parser = argparse.ArgumentParser(description="Typed values from the lines of a file.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).parent / "reviews.txt")
    parser.add_argument("--model", default="local", help="such as openai:gpt-4o-mini")
    parser.add_argument("--budget", default="1.00", help="the most that all may cost, in USD")
    parser.add_argument("--width", type=int, default=8, help="how many requests run at once")
    args = parser.parse_args()
    generator = GeneratorInfo.from_spec(args.model)
    if generator.token_price is None:  # without a price nothing can be kept within a budget
        generator = generator.with_published_price()
    lines = args.file.read_text(encoding="utf-8").splitlines()
    budget = Budget(args.budget)
    results = asyncio.run(extract(lines, generator, budget, args.width))
    failed = 0
    for number, result in enumerate(results, start=1):
        if isinstance(result, MiniLLMError):
            failed += 1
            print(f"line {number}: {result}", file=sys.stderr)
        else:
            print(json.dumps({"line": number, **asdict(result)}))
    print(f"{failed} of {len(lines)} failed; spent ${budget.spent}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
