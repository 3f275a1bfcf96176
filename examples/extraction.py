"""Extraction: a typed value for each line of a file, many at once, within a budget.

python examples/extraction.py
python examples/extraction.py my_reviews.txt --model openai:gpt-4o-mini --budget 0.50 \
    --journal reviews.journal > out.jsonl

With a journal, the same command resumes where an earlier one ended. Models other than the local one
need their prices: pip install 'minillmlib[prices]'.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from minillmlib import (
    Budget,
    BulkRun,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    MiniLLMError,
    NodeCompletionParameters,
    iterate,
    map_complete,
)


@dataclass
class Review:
    """The facts in one review."""

    product: str
    stars: Literal[1, 2, 3, 4, 5]


PROMPT = ChatNode.root("Extract the product and the number of stars from a review.")
PARAMS = NodeCompletionParameters(
    params=CompletionParameters(max_tokens=100, temperature=0.0),
    retry=2,  # an answer that does not fit the type goes back to the model
).expecting(Review)


def extract(
    lines: list[str], generator: GeneratorInfo, budget: Budget, journal: str | None = None
) -> BulkRun[Review]:
    """Return the run over the lines. Its outcomes come in their order."""
    return map_complete(
        lines, generator, PARAMS, prompt=PROMPT, budget=budget, journal=journal, ordered=True
    )


def main() -> int:
    """Read the command line, print a JSON object for each line, and report what failed."""
    parser = argparse.ArgumentParser(description="Typed values from the lines of a file.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).parent / "reviews.txt")
    parser.add_argument("--model", default="local", help="such as openai:gpt-4o-mini")
    parser.add_argument("--budget", default="1.00", help="the most that all may cost, in USD")
    parser.add_argument("--journal", help="a file with the answers so far, to resume from")
    args = parser.parse_args()
    lines = args.file.read_text(encoding="utf-8").splitlines()
    try:
        generator = GeneratorInfo.from_spec(args.model)
        if generator.token_price is None:  # without a price nothing can be kept within a budget
            generator = generator.with_published_price()
        run = extract(lines, generator, Budget(args.budget), args.journal)
    except MiniLLMError as error:  # such as an unknown model, or no price
        parser.error(str(error))
    try:
        for outcome in iterate(run):
            if outcome.error is not None:
                print(f"line {outcome.index + 1}: {outcome.error}", file=sys.stderr)
            else:
                print(json.dumps({"line": outcome.index + 1, **asdict(outcome.parsed)}))
    except MiniLLMError as error:  # every further line would have failed, too
        print(error, file=sys.stderr)
    done = run.progress.done
    print(f"{done} of {len(lines)} done; spent {run.total}", file=sys.stderr)
    return 0 if done == len(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
