"""The facts about hosts of the chat-completions wire, as data. None blocks a request.

Sources: the profiles of pydantic-ai 2.68 (p), vercel/ai of November 2026 (v), litellm 1.110 (l),
the vendors' own documentation (d), a recorded answer (r).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from minillmlib.json_value import JsonObject
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.tools import as_tool_choice


def _has_schema(params: CompletionParameters) -> bool:
    return params.response_format is not None and params.response_format.schema is not None


def _mode(params: CompletionParameters) -> str:
    return as_tool_choice(params.tool_choice or "auto").mode


def _effort(params: CompletionParameters) -> str | None:
    return params.reasoning.effort if params.reasoning else None


def _temperature(params: CompletionParameters) -> float:
    return 1 if params.temperature is None else params.temperature


# What a request has that a host may refuse.
CONDITIONS: Mapping[str, Callable[[CompletionParameters], bool]] = {
    "a schema": _has_schema,
    "a schema and tools": lambda params: _has_schema(params) and bool(params.tools),
    "any JSON": lambda params: params.response_format is not None and not _has_schema(params),
    "tools": lambda params: bool(params.tools),
    "tools and logprobs": lambda params: bool(params.tools) and params.logprobs is not None,
    "a forced call": lambda params: _mode(params) in ("required", "tool"),
    "a required call": lambda params: _mode(params) == "required",
    "no effort": lambda params: _effort(params) == "none",
    "a penalty": lambda params: bool(params.frequency_penalty or params.presence_penalty),
    "a frequency_penalty": lambda params: params.frequency_penalty is not None,
    "a seed": lambda params: params.seed is not None,
    "a stop": lambda params: bool(params.stop),
    "logprobs": lambda params: params.logprobs is not None,
    "a temperature of its own": lambda params: _temperature(params) != 1,
    "a temperature above 1": lambda params: _temperature(params) > 1,
    "a temperature of 0": lambda params: _temperature(params) == 0,
    "a top_p of 1": lambda params: params.top_p == 1,
}


class Refusal(msgspec.Struct, frozen=True):
    """One thing that a host refuses: what the request has, and what the message then says.

    `models` is a pattern in the names of the models that refuse it; the empty one is in all.
    """

    condition: str
    reason: str
    models: str = ""

    def explains(self, model: str, params: CompletionParameters) -> bool:
        """Whether a request is one that the host refuses."""
        return CONDITIONS[self.condition](params) and bool(re.search(self.models, model.lower()))


class HostRefusals(msgspec.Struct, frozen=True):
    """The known refusals of one host, as a value for `Capabilities.explain_refusal`."""

    host: str

    def __call__(self, model: str, params: CompletionParameters) -> str | None:
        """Return the known reasons for which the host refuses a request, or None."""
        rows = REFUSALS.get(self.host, ())
        return "; ".join(row.reason for row in rows if row.explains(model, params)) or None


REFUSALS: Mapping[str, tuple[Refusal, ...]] = {
    "groq": (
        Refusal("a schema", "Groq takes a schema for some of its models only, and with neither "
                "tools nor a stream; ResponseFormat.json() and the schema in the prompt work"),  # l
    ),
    "deepseek": (
        Refusal("a schema", "DeepSeek has no schemas; use ResponseFormat.json() and state the "
                "schema in the prompt"),  # r
        Refusal("a forced call", "DeepSeek forces no tool call while it thinks, which it does by "
                "default; extra={'thinking': {'type': 'disabled'}} stops that"),  # d
    ),
    "xai": (
        Refusal("a stop", "grok-4 takes no stop; leave it out", r"grok-4"),  # l
        Refusal("a frequency_penalty", "grok-4 takes no frequency_penalty; leave it out",
                r"grok-4"),  # l
        Refusal("no effort", "from grok-4.5 on the effort none is refused; use low",
                r"grok-4\.[5-9]|grok-[5-9]"),  # p
    ),
    "together": (
        Refusal("a forced call", "DeepSeek V4 forces no tool call; use tool_choice='auto'",
                r"deepseek-v4"),  # p
    ),
    "fireworks": (
        Refusal("a schema and tools", "Fireworks takes a schema and tools not together; leave one "
                "of them out"),  # l
    ),
    "cerebras": (
        Refusal("no effort", "this model always thinks; use the effort low",
                r"gpt-oss|kimi-k3|glm-5\.3"),  # p
    ),
    "perplexity": (
        Refusal("tools", "Perplexity calls no tools; leave them out"),  # l
    ),
    "moonshot": (
        Refusal("a required call", "Kimi has no tool_choice 'required'; use 'auto', and ask for "
                "the call in the prompt"),  # l
        Refusal("no effort", "Kimi K3 always thinks; use the effort low", r"kimi-k3"),  # d
        Refusal("a temperature of its own", "the models of Kimi that think take a temperature of 1 "
                "only; leave it out", r"kimi-k2\.[5-9]|kimi-k[3-9]|thinking"),  # l
        Refusal("a temperature above 1", "Kimi's temperature is at most 1"),  # l
    ),
    "zai": (
        Refusal("a schema", "most models of Z.ai have no schemas; use ResponseFormat.json() and "
                "state the schema in the prompt"),  # p
        Refusal("a seed", "Z.ai takes no seed; leave it out"),  # p
        Refusal("a penalty", "Z.ai takes no penalties; leave them out"),  # p
        Refusal("logprobs", "Z.ai takes no logprobs; leave it out"),  # p
        Refusal("no effort", "GLM-5.3 always thinks; use the effort low", r"glm-5\.3"),  # p
    ),
    "minimax": (
        Refusal("a temperature of 0", "MiniMax's temperature is above 0; 0.01 is close to it"),  # v
    ),
    "minimax-anthropic": (
        Refusal("a temperature of 0", "MiniMax's temperature is above 0; 0.01 is close to it"),  # d
        Refusal("a temperature above 1", "MiniMax's temperature is at most 1"),  # d
    ),
    "zai-anthropic": (
        Refusal("no effort", "GLM-5.3 always thinks; use the effort low", r"glm-5\.3"),  # l
    ),
    "sambanova": (
        Refusal("a penalty", "SambaNova takes no penalties; leave them out"),  # l
        Refusal("a seed", "SambaNova takes no seed; leave it out"),  # l
    ),
    "lmstudio": (  # lmstudio-bug-tracker#189
        Refusal("any JSON", "LM Studio has no JSON without a schema; give one"),
    ),
    "llamacpp": (  # ggml-org/llama.cpp#28478
        Refusal("tools and logprobs", "llama.cpp streams no logprobs beside tools; leave one of "
                "them out"),
    ),
    "tgi": (  # huggingface/text-generation-inference#2222
        Refusal("a top_p of 1", "TGI's top_p is below 1; leave it out"),
    ),
}  # fmt: skip


def takes_no_schema(model: str, form: ResponseFormat) -> str:
    """Return why no model of a host is held to a schema."""
    del form
    return f"the host of {model} takes no schema"


def mark_prefix(model: str, body: JsonObject) -> JsonObject:
    """Return the body with a last message that Mistral, or DeepSeek's beta address, continues."""
    del model
    return _mark(body, "prefix")


def mark_partial(model: str, body: JsonObject) -> JsonObject:
    """Return the body with a last message that Moonshot or Alibaba continues."""
    del model
    return _mark(body, "partial")


def _mark(body: JsonObject, key: str) -> JsonObject:
    match body.get("messages"):
        case [*others, {"role": "assistant"} as last]:
            return {**body, "messages": [*others, last | {key: True}]}
    return body
