"""An agent: the model calls Python functions until it can answer.

python examples/agent.py
python examples/agent.py --model openai:gpt-4o-mini "Do we have enough bolts for 3 ladders?"
"""

import argparse
import asyncio
import json

from minillmlib import ChatNode, CompletionParameters, GeneratorInfo, TokenPrice, ToolCall
from minillmlib.testing import ScriptedReply, ScriptedTransport

STOCK = {"ladder": 2, "bolt": 40}
PARTS = {"ladder": {"rail": 2, "rung": 9, "bolt": 18}}


def count_stock(item: str) -> int:
    """Count the pieces of an item in the store.

    Args:
        item: The name of the item, in the singular.
    """
    if item not in STOCK:
        raise LookupError(f"there is no {item!r}; the store has {', '.join(STOCK)}")
    return STOCK[item]


def list_parts(product: str) -> dict[str, int]:
    """List the parts of one piece of a product, and how many of each it needs."""
    return PARTS[product]


# The signature of a function becomes its schema, the docstring its description.
TOOLS = {tool.__name__: tool for tool in (count_stock, list_parts)}
MAX_TURNS = 8


async def answer(question: str, generator: GeneratorInfo) -> ChatNode:
    """Ask the model, run what it calls, and return the node with its final answer."""
    params = CompletionParameters(tools=list(TOOLS.values()))
    node = ChatNode.root("You keep the books of a workshop.").add_user(question)
    for _ in range(MAX_TURNS):
        node = await node.complete(generator, params)
        if not node.tool_calls:
            return node
        for call in node.tool_calls:  # each result follows the node before it
            node = add_result(node, call)
    raise SystemExit(f"no answer within {MAX_TURNS} turns")


def add_result(node: ChatNode, call: ToolCall) -> ChatNode:
    """Run one call and add its result, or its error, from which the model may learn."""
    try:
        tool = TOOLS[call.name]
        result = tool(**call.bind(tool))  # checks the arguments against the signature
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is for the model
        print(f"  {call.name}({call.arguments}) failed: {error}")
        return node.add_tool_result(call.id, f"{type(error).__name__}: {error}", is_error=True)
    print(f"  {call.name}({call.arguments}) = {result}")
    return node.add_tool_result(call.id, json.dumps(result))


def played_model() -> GeneratorInfo:
    """Return a model whose answers are written down here, so that the example needs no key."""

    def calls(name: str, arguments: str) -> dict[str, object]:
        function = {"name": name, "arguments": arguments}
        call = {"id": f"call-{name}-{len(arguments)}", "type": "function", "function": function}
        return {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}

    choices = [
        calls("list_parts", '{"product": "ladder"}'),
        calls("count_stock", '{"item": "bolts"}'),  # wrong: the tool's error corrects it
        calls("count_stock", '{"item": "bolt"}'),
        {"message": {"content": "No: 3 ladders need 54 bolts, and 40 are left."},
         "finish_reason": "stop"},
    ]  # fmt: skip
    usage = {"prompt_tokens": 120, "completion_tokens": 20}
    replies = [ScriptedReply.json({"choices": [choice], "usage": usage}) for choice in choices]
    generator = GeneratorInfo.custom("played", "https://played.example/v1", "m")
    return generator.with_token_price(TokenPrice(1, 5)).with_transport(ScriptedTransport(replies))


def main() -> None:
    """Read the command line and print the answer."""
    parser = argparse.ArgumentParser(description="An agent that looks things up in a store.")
    parser.add_argument("question", nargs="?", default="Do we have enough bolts for 3 ladders?")
    parser.add_argument("--model", help="such as openai:gpt-4o-mini; without it, a played one")
    args = parser.parse_args()
    generator = GeneratorInfo.from_spec(args.model) if args.model else played_model()
    node = asyncio.run(answer(args.question, generator))
    print(node.text)
    print(f"cost: {node.path_cost()}")  # of all turns, from the question to the answer


if __name__ == "__main__":
    main()
