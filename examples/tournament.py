"""A tournament: several answers to one question, judged in pairs, and the best one wins.

Each answer has a note, the last round that it reached.

python examples/tournament.py
python examples/tournament.py --model openai:gpt-4o-mini --candidates 8 --save names.tree
"""

import argparse
import asyncio
import itertools
from dataclasses import dataclass
from typing import Literal

from minillmlib import (
    ChatNode,
    CompletionParameters,
    CostTotal,
    GeneratorInfo,
    NodeCompletionParameters,
)

WRITER = CompletionParameters(max_tokens=20, temperature=1.0)


@dataclass
class Verdict:
    """The answer of a judge."""

    better: Literal["A", "B"]


JUDGE = NodeCompletionParameters(
    params=CompletionParameters(max_tokens=40, temperature=0.0)
).expecting(Verdict)


async def duel(
    task: str, first: ChatNode, second: ChatNode, generator: GeneratorInfo
) -> tuple[ChatNode, CostTotal]:
    """Return the better one of two answers, and what it cost to find out."""

    async def prefers(a: ChatNode, b: ChatNode) -> tuple[bool, CostTotal]:
        judge = ChatNode.root("You compare two answers. Say which is better, A or B.")
        asked = f"The task: {task}\n\nA: {a.text}\n\nB: {b.text}"
        node = await judge.chat(asked, generator, JUDGE)
        return node.parsed.better == "A", node.path_cost()

    # Judges like what they read first, so each pair is shown both ways.
    straight, turned = await asyncio.gather(prefers(first, second), prefers(second, first))
    points = straight[0] + (not turned[0])
    return (first if points >= 1 else second), straight[1] + turned[1]


async def tournament(
    task: str, generator: GeneratorInfo, candidates: int, path: str | None = None
) -> tuple[ChatNode, CostTotal]:
    """Return the node of the best answer, and the cost of the answers and the judging."""
    root = ChatNode.root("You are a creative writer. Answer in one line.")
    remaining = await root.chat_many(task, candidates, generator, WRITER)
    cost = root.subtree_cost()
    for level in itertools.count(1):
        for answer in remaining:
            answer.note("round", level)  # in the end, the last round that each one reached
        if len(remaining) == 1:
            break
        pairs = zip(remaining[::2], remaining[1::2], strict=False)
        duels = await asyncio.gather(*(duel(task, a, b, generator) for a, b in pairs))
        bye = remaining[-1:] if len(remaining) % 2 else []
        remaining = [*(winner for winner, _ in duels), *bye]
        cost = sum((spent for _, spent in duels), cost)
    if path is not None:
        root.save_tree(path)  # `minillmlib tree FILE` and `minillmlib view FILE` show it
    return remaining[0], cost


def main() -> None:
    """Read the command line and print the best answer."""
    parser = argparse.ArgumentParser(description="The best of several answers.")
    parser.add_argument("task", nargs="?", default="Invent a name for a café by the sea.")
    parser.add_argument("--model", default="local", help="such as openai:gpt-4o-mini")
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--save", metavar="FILE", help="keep all answers in this file")
    args = parser.parse_args()
    generator = GeneratorInfo.from_spec(args.model)
    best, cost = asyncio.run(tournament(args.task, generator, args.candidates, args.save))
    for answer in best.siblings():
        print(f"  {answer.text} (round {answer.notes['round']})")
    print(f"* {best.text}")
    print(f"cost: {cost}")


if __name__ == "__main__":
    main()
