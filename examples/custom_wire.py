"""A wire of your own: a server that speaks no known protocol, whole and streamed.

python examples/custom_wire.py

The made-up server takes POST /v2/write with the header Ink-Token and answers with one JSON object,
or with one object on each line if `live` is true.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from minillmlib import (
    Auth,
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    FinishReason,
    GeneratorInfo,
    InvalidParameterError,
    Message,
    Provider,
    StreamChunk,
    TokenPrice,
    Usage,
)
from minillmlib.testing import ProviderCase, ScriptedReply, ScriptedTransport, check_provider

# A word that is not in the table is UNKNOWN, never a success.
ENDINGS = {"done": FinishReason.STOP, "cut": FinishReason.LENGTH}


class Inkwell(Provider):
    """The whole adapter: where it goes, what it sends, and what the answers mean."""

    def endpoint_url(self, base: str) -> str:
        """Return the one address of this server."""
        return f"{base.rstrip('/')}/v2/write"

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """Return its header for the key."""
        secret = auth.secret()
        return [("Ink-Token", secret.expose_secret())] if secret else []

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,  # noqa: ARG002 - this server always counts
    ) -> dict[str, Any]:
        """Return the body. What it has no place for is refused, never left out."""
        params.check_only("max_tokens", "temperature", "extra", wire="Inkwell")
        turns = []
        for message in messages:
            if not isinstance(message.content, str) or message.tool_calls or message.tool_call_id:
                raise InvalidParameterError("Inkwell takes plain text only")
            turns.append({"by": message.role.value, "says": message.content})
        body: dict[str, Any] = {"pen": model, "turns": turns, "live": stream, **params.extra}
        if params.max_tokens is not None:
            body["most"] = params.max_tokens
        if params.temperature is not None:
            body["heat"] = params.temperature
        return body

    def parse_response(self, raw: Any) -> CompletionResponse:
        """Return a whole answer. A key that is missing becomes a MalformedResponseError."""
        return CompletionResponse(
            content=raw["text"],
            finish_reason=ENDINGS.get(raw["end"], FinishReason.UNKNOWN),
            usage=self.parse_usage(raw),
            raw_response=raw,
        )

    def parse_chunk(self, data: str) -> StreamChunk:
        """Return what one line of a stream adds; the last line has the end and the counts."""
        line = json.loads(data)
        if "end" not in line:
            return StreamChunk(delta=line["text"])
        reason = ENDINGS.get(line["end"], FinishReason.UNKNOWN)
        return StreamChunk(finish_reason=reason, usage=self.parse_usage(line))

    def parse_usage(self, raw: Any) -> Usage:
        """Return the token counts."""
        read, written = raw["ink"]
        return Usage(uncached_input_tokens=read, completion_tokens=written)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: ARG002, FBT001
        """Nothing follows the line with the end, so do not wait for more."""
        return False


# What such a server answers, byte for byte; record yours.
WHOLE = b'{"text": "The tide is out.", "end": "done", "ink": [12, 5]}'
LINES = ('{"text": "The tide"}', '{"text": " is out."}', '{"end": "done", "ink": [12, 5]}')


async def main() -> None:
    """Check the adapter, then use it like any other model."""
    counts = Usage(uncached_input_tokens=12, completion_tokens=5)
    text = "The tide is out."
    case = ProviderCase(name="tide", text=text, body=WHOLE, events=LINES, usage=counts)
    check_provider(Inkwell(), [case])

    lines = ScriptedReply(
        pieces=tuple(f"{line}\n".encode() for line in LINES),
        headers={"content-type": "application/x-ndjson"},
    )
    generator = (
        GeneratorInfo.custom("inkwell", "https://inkwell.example", "quill-1")
        .with_provider(Inkwell())
        .with_api_key("my-key")
        .with_token_price(TokenPrice(1.0, 5.0))
        # Leave this out to send to the real server.
        .with_transport(ScriptedTransport([ScriptedReply.json(WHOLE), lines]))
    )
    root = ChatNode.root("You describe the sea.")
    answer = await root.chat("How is the sea?", generator)
    print(answer.text, answer.cost)
    async with root.chat_streaming("How is the sea?", generator) as stream:
        async for piece in stream.text():
            print(piece, end="", flush=True)
    print("", stream.node.cost)


if __name__ == "__main__":
    asyncio.run(main())
