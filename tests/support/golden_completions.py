"""The content of the golden files in the completions wire, for `golden_expected`."""

from __future__ import annotations

from minillmlib import CompletionResponse, FinishReason, TokenLogprob, Usage

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
OPENAI_ID, VLLM_ID = "cmpl-CkSample0001", "cmpl-2790273630b14f289bdb786fbd83736a"
OLMO, SMOL = "allenai/Olmo-3-1125-32B", "smollm2-135m-instruct"


def token(text: str, logprob: float, data: bytes | None = None, **top: float) -> TokenLogprob:
    """A token, and what else was likely at its place."""
    others = (TokenLogprob(token=name, logprob=number) for name, number in top.items())
    return TokenLogprob(token=text, logprob=logprob, bytes=data, top=tuple(others))


def bytewise(*tokens: tuple[bytes, float]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token=data.decode("utf-8", "replace"), logprob=logprob, bytes=data)
        for data, logprob in tokens
    )


ANSWERS = {
    "completions_openai_stream.sse": CompletionResponse(
        id=OPENAI_ID, model="davinci-002", content="Low water at 06:12.",
        finish_reason=STOP, raw_finish_reason="stop",
        usage=Usage(uncached_input_tokens=6, completion_tokens=7)),
    "completions_openai_text_logprobs.json": CompletionResponse(
        id=OPENAI_ID, model="gpt-3.5-turbo-instruct:20230824-v2", content="\nLow water at 06:12.",
        finish_reason=STOP, raw_finish_reason="stop",
        logprobs=(
            token("\n", -0.00042, **{"\n": -0.00042, "\n\n": -8.13}),
            token("Low", -0.1512, Low=-0.1512, The=-2.0714),
            token(" water", -0.00391, **{" water": -0.00391, " tide": -5.61}),
            token(" at", -0.0275, **{" at": -0.0275, " is": -3.7}),
            token(" 06", -0.2214, **{" 06": -0.2214, " six": -1.68}),
            token(":", -0.00011, **{":": -0.00011, "h": -9.4}),
            token("12", -0.3567, **{"12": -0.3567, "10": -1.22}),
            token(".", -0.0044, **{".": -0.0044, "\n": -5.5}),
        ),
        usage=Usage(uncached_input_tokens=6, completion_tokens=8)),
    # The third token has no probability, and the first was not the likeliest one.
    "completions_vllm_text_logprobs.json": CompletionResponse(
        id=VLLM_ID, model=OLMO, content="潮 high", finish_reason=STOP, raw_finish_reason="stop",
        logprobs=(
            token("\ufffd", -1.5, **{" the": -1.0, "\ufffd": -1.5}),
            token("\ufffd", -0.01, **{"\ufffd": -0.01}),
            token("\n", -9999.0, **{"": -0.002, "\n": -9999.0}),
        ),
        usage=Usage(uncached_input_tokens=2, completion_tokens=4)),
    # The third token was not the likeliest either.
    "completions_vllm_stream_logprobs.sse": CompletionResponse(
        id=VLLM_ID, model=OLMO, content="Low water at 06:12.",
        finish_reason=LENGTH, raw_finish_reason="length",
        logprobs=(
            token("Low", -0.5, Low=-0.5, High=-1.25),
            token(" water", -0.125, **{" water": -0.125, " tide": -2.5}),
            token(" at", -2.0, **{" is": -0.25, " at": -2.0}),
            token(" 06:12", -0.75, **{" 06:12": -0.75, " noon": -1.0}),
            token(".", -0.0625, **{".": -0.0625, "": -4.0}),
        ),
        usage=Usage(uncached_input_tokens=84, completion_tokens=5)),
    # llama.cpp has the probabilities in the shape of chat completions, and counts the stop word.
    "completions_llamacpp_text_logprobs.json": CompletionResponse(
        id="chatcmpl-U6nZebc7Ts3YuMaJMaGXn2Co8Lq5KY8b", model=SMOL, content=" Paris",
        finish_reason=STOP, raw_finish_reason="stop",
        logprobs=(
            TokenLogprob(
                token=" Paris", logprob=-0.25889989733695984, bytes=b" Paris",
                top=bytewise((b" Paris", -0.25889989733695984), (b" the", -2.764557123184204))),
        ),
        usage=Usage(uncached_input_tokens=4, cache_read_tokens=1, completion_tokens=2)),
    # Of the tokens of one character it sends the last alone.
    "completions_llamacpp_stream_logprobs.sse": CompletionResponse(
        id="chatcmpl-9f3kyteKDGUOWKysGJzQiXQ27zBu5sQj", model=SMOL, content="\N{WATER WAVE}",
        finish_reason=LENGTH, raw_finish_reason="length",
        logprobs=(
            TokenLogprob(
                token="\N{WATER WAVE}", logprob=-0.2508659064769745, bytes=b"\xf0\x9f\x8c\x8a",
                top=bytewise((b"\x8a", -0.2508659064769745), (b"\x88", -3.328580856323242))),
        ),
        usage=Usage(uncached_input_tokens=1, cache_read_tokens=14, completion_tokens=5)),
}  # fmt: skip

VLLM = {"created": 1795000200, "system_fingerprint": "vllm-0.16.0-tp1"}
LLAMA = {"created": 1796025331, "system_fingerprint": "b0-unknown"}
EXTRA = {
    "completions_openai_stream.sse": {"created": 1795000000},
    "completions_openai_text_logprobs.json": {"created": 1795000000},
    "completions_vllm_text_logprobs.json": {
        **VLLM, "stop_reason": "\n", "token_ids": [8723, 229, 1579, 198],
        "prompt_logprobs": [None, {
            "30": {"logprob": -2.25, "rank": 3, "decoded_token": " is"}}]},
    "completions_vllm_stream_logprobs.sse": VLLM,
    "completions_llamacpp_text_logprobs.json": {**LLAMA, "timings": {
        "cache_n": 1, "prompt_n": 4, "prompt_ms": 40.533, "prompt_per_token_ms": 10.13325,
        "prompt_per_second": 98.68502208077369, "predicted_n": 2, "predicted_ms": 15.41,
        "predicted_per_token_ms": 15.41, "predicted_per_second": 64.89292667099286}},
    "completions_llamacpp_stream_logprobs.sse": {**LLAMA, "timings": {
        "cache_n": 14, "prompt_n": 1, "prompt_ms": 10.324, "prompt_per_token_ms": 10.324,
        "prompt_per_second": 96.86168151879117, "predicted_n": 5, "predicted_ms": 47.878,
        "predicted_per_token_ms": 11.9695, "predicted_per_second": 83.54567859977443}},
}  # fmt: skip
