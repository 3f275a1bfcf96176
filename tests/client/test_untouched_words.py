"""What a caller gave is sent as it was, and what a model said is never taken for a template."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from short_answers import said

from minillmlib import (
    Budget,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    ToolCall,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

CUSTOM = GeneratorInfo.custom("x", "https://x.example/v1", "m")
FAILED = ScriptedReply.json({"error": {"message": "busy"}}, status=503)


def settings(extra, **more) -> NodeCompletionParameters:
    params = CompletionParameters(extra=extra)
    return NodeCompletionParameters(params=params, back_off_time=0.0, retry=1, **more)


def bodies(transport: ScriptedTransport) -> list:
    return [json.loads(request.body) for request in transport.requests]


# Further keys of the body.


class Changing(ScriptedTransport):
    """Changes, at each request, what the caller gave."""

    def __init__(self, replies, change) -> None:
        super().__init__(replies)
        self._change = change

    async def send(self, request):
        self._change()
        return await super().send(request)


@pytest.mark.parametrize(
    "change",
    [
        lambda extra: extra["metadata"].update(user="other"),
        lambda extra: extra["metadata"]["tags"].append("other"),
        lambda extra: extra.clear(),
    ],
    ids=["an object", "a list within", "all"],
)
def test_a_retry_is_the_first_request_whatever_the_caller_changes_meanwhile(change):
    extra = {"metadata": {"user": "u", "tags": ["a"]}}
    params = settings(extra)
    transport = Changing([FAILED, said("ok")], lambda: change(extra) if extra else None)
    run(ChatNode.root("s").chat("q", CUSTOM.with_transport(transport), params))
    first, second = bodies(transport)
    assert first == second
    assert second["metadata"] == {"user": "u", "tags": ["a"]}
    assert params.params.extra == {"metadata": {"user": "u", "tags": ["a"]}}


class Careless(GenericProvider):
    """A provider that changes the body within what it was given."""

    def build_request(self, model, messages, params, *, stream, include_usage):
        body = super().build_request(
            model, messages, params, stream=stream, include_usage=include_usage
        )
        body["metadata"]["tags"].append("mine")
        return body


def test_a_provider_changes_only_its_own_body():
    transport = ScriptedTransport([FAILED, said("ok")])
    params = settings({"metadata": {"tags": []}})
    generator = CUSTOM.with_provider(Careless()).with_transport(transport)
    run(ChatNode.root("s").chat("q", generator, params))
    assert [body["metadata"]["tags"] for body in bodies(transport)] == [["mine"], ["mine"]]
    assert params.params.extra == {"metadata": {"tags": []}}


def test_a_tool_calls_keys_are_copied_too():
    extra = {"function": {"signature": ["s"]}}
    call = ToolCall(id="c", name="f", arguments="{}", extra=extra)
    extra["function"]["signature"].append("other")
    assert call.extra == {"function": {"signature": ["s"]}}


def test_what_cannot_be_copied_is_an_error_of_ours():
    with pytest.raises(InvalidParameterError, match="extra must hold JSON values"):
        CompletionParameters(extra={"a": [(one for one in "ab")]})


# Budgets.


@pytest.mark.parametrize(
    "use", [copy.deepcopy, copy.copy, pickle.dumps, lambda held: pickle.dumps([held])]
)
def test_parameters_with_a_budget_say_how_they_are_copied(use):
    params = NodeCompletionParameters(budget=Budget("0.50"))
    if use is copy.copy:
        assert use(params).budget is params.budget
        return
    with pytest.raises(
        InvalidParameterError, match=r"replace\(\).*replace\(budget=None\).*budget.split\("
    ):
        use(params)
    assert params.replace(retry=1).budget is params.budget
    assert use(params.replace(budget=None))


# Placeholders.


WORDS = 'print(f"Hello {name} and {{name}}")'
FILLED = {"name": "Bob"}


def sent(node: ChatNode, *more: ScriptedReply) -> str:
    transport = ScriptedTransport([*more, said("ok")])
    params = NodeCompletionParameters(format_kwargs=FILLED)
    run(node.chat("I am {name}", CUSTOM.with_transport(transport), params))
    (body,) = bodies(transport)
    assert body["messages"][-1]["content"].endswith("I am Bob") or any(
        part.get("text") == "I am Bob" for part in body["messages"][-1]["content"]
    )
    return json.dumps(body["messages"])


def text_of(message: dict) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


CONVERSATIONS = {
    "said by a model": lambda: ChatNode.root("s").add_user("q").add_assistant(WORDS),
    "loaded": lambda: ChatNode.from_messages([Message.user("q"), Message.assistant(WORDS)])[1],
    "of a dictionary": lambda: ChatNode.from_messages(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": WORDS}])[1],
    "of a tool": lambda: ChatNode.from_messages(
        [Message.user("q"), Message.assistant("", [ToolCall(id="c", name="f", arguments="{}")])]
    )[1].add_tool_result("c", WORDS),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_words_of_models_and_tools_are_sent_as_they_were(name):
    leaf = CONVERSATIONS[name]()
    assert json.dumps(WORDS) in sent(leaf)
    assert leaf.missing_format_kwargs() == []


async def summed_up(generator, params=None) -> ChatNode:
    leaf = ChatNode.root("s").add_user("q {name}").add_assistant(WORDS).add_user("more")
    return await leaf.collapse_thread(keep_last=1, generator=generator, params=params)


def test_a_summary_by_a_model_is_no_template():
    transport = ScriptedTransport([said(f"They wrote {WORDS}."), said("ok")])
    generator = CUSTOM.with_transport(transport)
    params = NodeCompletionParameters(format_kwargs=FILLED)
    leaf = run(summed_up(generator, params))
    asked = text_of(bodies(transport)[0]["messages"][-1])
    assert WORDS in asked  # as the model wrote it
    assert "q Bob" in asked  # as the user meant it
    assert leaf.missing_format_kwargs() == []
    run(leaf.chat("I am {name}", generator, params))
    assert f"They wrote {WORDS}." in text_of(bodies(transport)[1]["messages"][1])
    assert text_of(bodies(transport)[1]["messages"][1]).endswith("I am Bob")


def test_a_plain_summary_stays_one_text():
    transport = ScriptedTransport([said("They {spoke} of { and }.".replace("{spoke}", "spoke"))])
    leaf = run(summed_up(CUSTOM.with_transport(transport)))
    assert leaf.parent.message.content.endswith("They spoke of { and }.")
