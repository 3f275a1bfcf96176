"""All wires for tests of typed results: answers by script, and the requests for them."""

from __future__ import annotations

import msgspec

from minillmlib import GeneratorInfo
from minillmlib.testing import ScriptedReply, ScriptedTransport

COUNTS = {"prompt_tokens": 3, "completion_tokens": 1}
CLAUDE_COUNTS = {"input_tokens": 3, "output_tokens": 1}


class Wire:
    """A generator that answers by script, and the bodies of the requests it was sent."""

    model = "m"

    def __init__(self, *answers):
        replies = [self.reply(*answer) if isinstance(answer, tuple) else self.reply(answer)
                   for answer in answers]  # fmt: skip
        self.transport = ScriptedTransport(replies)

    def reply(self, answer, finish: str = "", **fields) -> ScriptedReply:
        return answer if isinstance(answer, ScriptedReply) else self.whole(answer, finish)

    @property
    def generator(self) -> GeneratorInfo:
        return self.bare().with_api_key("k").with_transport(self.transport)

    @property
    def bodies(self) -> list[dict]:
        return [msgspec.json.decode(request.body) for request in self.transport.requests]

    def turns(self, number: int = -1) -> list[tuple[str, str]]:
        return [(turn["role"], self.text(turn)) for turn in self.bodies[number]["messages"]]


class Chat(Wire):
    """OpenAI's."""

    model = "gpt-6"

    def bare(self) -> GeneratorInfo:
        return GeneratorInfo.openai(self.model, wire="chat")

    @staticmethod
    def whole(text: str | None, finish: str = "", **said) -> ScriptedReply:
        choice = {
            "index": 0,
            "message": {"content": text, **said},
            "finish_reason": finish or "stop",
        }
        return ScriptedReply.json({"id": "1", "choices": [choice], "usage": COUNTS})

    @staticmethod
    def streamed(*texts: str, finish: str = "stop") -> ScriptedReply:
        deltas = [({"content": text}, None) for text in texts] + [({}, finish)]
        events = [
            {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            for delta, reason in deltas
        ]
        events.append({"id": "1", "choices": [], "usage": COUNTS})
        lines = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events]
        return ScriptedReply.events(*lines, b"data: [DONE]\n\n")

    @staticmethod
    def text(turn: dict) -> str:
        return turn["content"]

    @staticmethod
    def form(body: dict) -> dict | None:
        form = body.get("response_format")
        return form and form["json_schema"]["schema"]

    refused_text = "I cannot help with that."  # the words of the model itself
    refused = whole(None, refusal=refused_text)
    cut = "length"

    @staticmethod
    def calls(text: str = "Let me look.") -> ScriptedReply:
        call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        return Chat.whole(text or None, "tool_calls", tool_calls=[call])


class Responses(Wire):
    """OpenAI's newer one."""

    model = "gpt-6"

    def bare(self) -> GeneratorInfo:
        return GeneratorInfo.openai(self.model)

    def turns(self, number: int = -1) -> list[tuple[str, str]]:
        return [(item["role"], item["content"]) for item in self.bodies[number]["input"]]

    @staticmethod
    def body(output: list[dict], finish: str = "") -> dict:
        end = {"status": "incomplete", "incomplete_details": {"reason": finish}}
        return {"id": "1", "output": output, "usage": CLAUDE_COUNTS,
                **(end if finish else {"status": "completed"})}  # fmt: skip

    @staticmethod
    def item(text: str, kind: str = "output_text", key: str = "text") -> dict:
        return {"type": "message", "content": [{"type": kind, key: text}]}

    @staticmethod
    def whole(text: str, finish: str = "") -> ScriptedReply:
        return ScriptedReply.json(Responses.body([Responses.item(text)] if text else [], finish))

    @staticmethod
    def streamed(*texts: str, finish: str = "") -> ScriptedReply:
        place = {"output_index": 0, "content_index": 0}
        end = Responses.body([], finish)
        events = [
            {"type": "response.created", "response": {"id": "1"}},
            {"type": "response.output_item.added", "item": {"type": "message"}, **place},
            *({"type": "response.output_text.delta", "delta": text, **place} for text in texts),
            {"type": f"response.{end['status']}", "response": end},
        ]
        return ScriptedReply.events(
            *(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)
        )

    @staticmethod
    def form(body: dict) -> dict | None:
        form = body.get("text")
        return form and form["format"]["schema"]

    refused_text = "I cannot help with that."
    refused = ScriptedReply.json(body.__func__([item.__func__(refused_text, "refusal", "refusal")]))
    cut = "max_output_tokens"

    @staticmethod
    def calls(text: str = "Let me look.") -> ScriptedReply:
        call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
        return ScriptedReply.json(Responses.body([Responses.item(text), call]))


class Claude(Wire):
    """Anthropic's own."""

    model = "claude-haiku-4-5"

    def bare(self) -> GeneratorInfo:
        return GeneratorInfo.anthropic(self.model)

    @staticmethod
    def whole(text: str, finish: str = "", *blocks: dict, **fields) -> ScriptedReply:
        content = [*([{"type": "text", "text": text}] if text else []), *blocks]
        return ScriptedReply.json(
            {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": content,
             "stop_reason": finish or "end_turn", "usage": CLAUDE_COUNTS, **fields}
        )  # fmt: skip

    @staticmethod
    def streamed(*texts: str, finish: str = "end_turn") -> ScriptedReply:
        events = [
            {"type": "message_start", "message": {"id": "1", "model": "m", "usage": CLAUDE_COUNTS}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0,
               "delta": {"type": "text_delta", "text": text}} for text in texts),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": finish}, "usage": CLAUDE_COUNTS},
            {"type": "message_stop"},
        ]  # fmt: skip
        return ScriptedReply.events(
            *(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)
        )

    @staticmethod
    def text(turn: dict) -> str:
        return "".join(block["text"] for block in turn["content"])

    @staticmethod
    def form(body: dict) -> dict | None:
        config = body.get("output_config")
        return config and config["format"]["schema"]

    refused_text = ""  # the wire has only a reason
    refused = whole("", "refusal", stop_details={"explanation": "I cannot help with that."})
    cut = "max_tokens"

    @staticmethod
    def calls(text: str = "Let me look.") -> ScriptedReply:
        use = {"type": "tool_use", "id": "c", "name": "look", "input": {}}
        return Claude.whole(text, "tool_use", use)
