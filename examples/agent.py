"""An agent, streamed: the model calls Python functions until it can answer.

python examples/agent.py
python examples/agent.py --model openai:gpt-4o-mini "Do we have enough bolts for 3 ladders?"
"""

import argparse
import asyncio
import re

from minillmlib import ChatNode, GeneratorInfo, TokenPrice, Usage
from minillmlib.testing import ScriptedReply, ScriptedTransport


# The signature of a function becomes its schema, the docstring its description.
def count_stock(item: str) -> int:  # in a thread, since it may block
    """Count the pieces of an item in the store. Its name is in the singular."""
    return {"ladder": 2, "bolt": 40}[item]  # the model reads a KeyError and corrects itself


async def list_parts(product: str) -> dict[str, int]:
    """List the parts of one piece of a product, and how many of each it needs."""
    return {"ladder": {"rail": 2, "rung": 9, "bolt": 18}}[product]


def order(item: str, count: int) -> str:
    """Order pieces of an item."""
    raise ConnectionError(f"no {count} of {item}: the supplier does not answer")


async def answer(question: str, model: GeneratorInfo) -> ChatNode:
    """Answer a question, and print every step."""
    node = ChatNode.root("You keep the books of a workshop.").add_user(question)
    async with node.run_tools_streaming(model, [count_stock, list_parts, order]) as steps:
        async for step in steps:
            if step.chunk:
                print(step.chunk.delta, end="", flush=True)
            elif step.call and step.kind == "result":
                print(f"{step.call.name}({step.call.arguments}): {step.node.text}")
    return steps.node


def played_model() -> GeneratorInfo:
    """Return a model whose answers are written down here, so that the example needs no key."""
    usage = Usage(uncached_input_tokens=120, completion_tokens=20)
    look_up = (("list_parts", {"product": "ladder"}), ("count_stock", {"item": "bolts"}))
    order = ("order", {"item": "bolt", "count": 14})
    say = "We have 40 of 54, so I order 14.\n"
    end = "No: 14 bolts are missing, and the supplier does not answer."
    replies = [
        ScriptedReply.tool_calls(*look_up, usage=usage),
        ScriptedReply.tool_calls(("count_stock", {"item": "bolt"}), usage=usage),  # corrected
        ScriptedReply.tool_calls(order, text=say, usage=usage),
        ScriptedReply.stream(re.findall(r"\S+\s*", end), usage=usage),
    ]
    generator = GeneratorInfo.custom("played", "https://played.example/v1", "m")
    return generator.with_token_price(TokenPrice(1, 5)).with_transport(ScriptedTransport(replies))


def main() -> None:
    """Read the command line and run the agent."""
    parser = argparse.ArgumentParser(description="An agent that looks things up in a store.")
    parser.add_argument("question", nargs="?", default="Do we have enough bolts for 3 ladders?")
    parser.add_argument("--model", help="such as openai:gpt-4o-mini; without it, a played one")
    args = parser.parse_args()
    model = GeneratorInfo.from_spec(args.model) if args.model else played_model()
    node = asyncio.run(answer(args.question, model))
    print(f"\ncost: {node.path_cost()}")  # of all turns, from the question to the answer


if __name__ == "__main__":
    main()
