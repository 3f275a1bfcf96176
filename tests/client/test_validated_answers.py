"""What the settings make of an answer: its text, its value, or the error that rejects it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from golden import GOLDEN
from minillmlib import (
    CompletionParameters,
    CompletionResponse,
    EmptyResponseError,
    FinishReason,
    GeneratorInfo,
    ImagePart,
    Message,
    NodeCompletionParameters,
    RejectedResponseError,
    ToolCall,
    Usage,
)
from minillmlib.client.prepare import prepare
from minillmlib.client.validate import NOT_PARSED, validate, with_correction
from minillmlib.types.reasoning import ReasoningBlock

OWN = GeneratorInfo.custom("own", "https://own.example/v1", "m")
PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")
LIMITED = NodeCompletionParameters(params=CompletionParameters(max_tokens=10))
LENIENT = {"allow_incomplete_json": True}
SETTINGS = {
    "empty": NodeCompletionParameters(crash_on_empty_response=True),
    "refusal": NodeCompletionParameters(crash_on_refusal=True),
    "json": LIMITED.replace(parse_json=True),
    "json or refusal": LIMITED.replace(parse_json=True, crash_on_refusal=True),
    "lenient json": LIMITED.replace(parse_json=True, **LENIENT),
    "number": LIMITED.expecting(int),
    "lenient number": LIMITED.replace(**LENIENT).expecting(int),
}
TEXTS = (
    "", " \n", "No.", "{}", "[]", '""', "null", "0", "12", "[1, 2]", "[1, 2", "[1, 2] or [3]",
    "Sure: [1, 2]. Bye", '{"answer": 7}', '{"answer": 7', '{"answer": [1, "2"]}', '{"answer": "x"}',
    '{"answer": "x"} no: {"answer": 8}', "{'answer': 7,}", "{\u201canswer\u201d: 7}", '{"a": 1} {"a": 2}',
)  # fmt: skip
WHOLE = CompletionResponse(
    content="", finish_reason=FinishReason.STOP, usage=Usage(completion_tokens=9)
)
ENDS = {
    "stop": WHOLE,
    "length": replace(WHOLE, finish_reason=FinishReason.LENGTH),
    "at the limit": replace(WHOLE, usage=Usage(completion_tokens=10)),
    "uncounted": replace(WHOLE, usage=None),
    "refused": replace(WHOLE, refusal="I will not."),
    "calls": replace(WHOLE, tool_calls=(ToolCall(id="c", name="f", arguments="{}"),)),
    "an image": replace(WHOLE, media=(PNG,)),
}


def call_of(settings: NodeCompletionParameters):
    return prepare([Message.user("u")], OWN, settings, stream=False)


def outcome_of(call, response: CompletionResponse) -> str:
    try:
        answer, parsed = validate(call, response)
    except RejectedResponseError as error:
        told = response.content if response.refusal is None else response.refusal
        assert error.partial == ("" if type(error) is EmptyResponseError else told)
        return type(error).__name__
    value = "" if parsed is NOT_PARSED else f" | {parsed!r}"
    return f"{answer.content!r}{value}"


def test_an_answer_is_accepted_or_rejected_like_this():
    lines = []
    for wanted, settings in SETTINGS.items():
        call = call_of(settings)
        for end, response in ENDS.items():
            found: dict[str, list[str]] = {}
            for text in TEXTS if end in ("stop", "length", "at the limit") else TEXTS[:10]:
                outcome = outcome_of(call, replace(response, content=text))
                outcome = "as it is" if outcome == repr(text) else outcome
                found.setdefault(outcome, []).append(repr(text))
            lines += [f"{wanted}, {end}: {' '.join(texts)} -> {outcome}"
                      for outcome, texts in found.items()]  # fmt: skip
    assert lines == (GOLDEN / "texts/validated_answers.txt").read_text().splitlines()


def test_what_is_sealed_within_a_text_that_is_replaced_stands_after_it():
    blocks = tuple(
        ReasoningBlock(fields={"type": "thinking"}, text_before=place) for place in (0, 3, 14)
    )
    response = replace(WHOLE, content="Sure: [1, 2]. Bye", reasoning_blocks=blocks)
    answer, _ = validate(call_of(SETTINGS["json"]), response)
    assert answer.content == "[1, 2]"
    assert [block.text_before for block in answer.reasoning_blocks] == [0, 6, 6]
    same, _ = validate(call_of(SETTINGS["json"]), replace(response, content="[1, 2]"))
    assert [block.text_before for block in same.reasoning_blocks] == [0, 3, 14]


@pytest.mark.parametrize(
    ("settings", "response", "count"),
    [
        (SETTINGS["number"], replace(WHOLE, content="x"), 3),
        (SETTINGS["number"].replace(force_prepend="["), replace(WHOLE, content="[x"), 4),
        (SETTINGS["number"], replace(WHOLE, content=" "), None),
        (SETTINGS["number"], replace(WHOLE, content="x", refusal="no"), None),
        (SETTINGS["json"], replace(WHOLE, content="x"), None),
    ],
)
def test_a_wrong_answer_is_corrected_by_two_turns(settings, response, count):
    call = call_of(settings)
    corrected = with_correction(call, response, RejectedResponseError("it is wrong"))
    if count is None:
        assert corrected is None
        return
    roles = [message.role.value for message in corrected.messages]
    assert roles == ["user", "assistant", "user", "assistant"][:count]
    assert corrected.messages[1].text == response.content
    assert corrected.messages[2].text.startswith("It is wrong\n\nAnswer again, ")
    assert (corrected.messages[0], corrected.messages[3:]) == (
        call.messages[0], call.messages[1:],
    )  # fmt: skip
    assert corrected.prefix is None
