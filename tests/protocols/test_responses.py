"""The Responses wire: what is sent, what is read, and what goes back to the server that made it."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from responses_wire import USAGE, as_events, bodies, sent_back, stream_of
from sent_bodies import MP4, PDF, PNG, WAV, asked, get_weather
from short_answers import RESPONSE as OK

import minillmlib
from golden import GOLDEN
from minillmlib import (
    AudioPart,
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    CostResolution,
    DocumentPart,
    FinishReason,
    GeneratorInfo,
    ImagePart,
    IncompleteStreamError,
    InvalidParameterError,
    MalformedResponseError,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    ServerError,
    TextPart,
    TokenPrice,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    VideoPart,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

ONCE = NodeCompletionParameters(retry=0)
RANDOMS = st.randoms(use_true_random=False)
EXAMPLES = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def generator_of(*replies: ScriptedReply, model: str = "gpt-5.6-terra") -> GeneratorInfo:
    generator = GeneratorInfo.openai(model, wire="responses").with_api_key("k")
    return generator.with_transport(ScriptedTransport(replies))


def body_of(
    leaf: ChatNode, params: CompletionParameters | None = None, model: str = "gpt-5.6-terra"
) -> dict[str, Any]:
    generator = generator_of(ScriptedReply.json(OK), model=model)
    minillmlib.run(leaf.complete(generator, params))
    return msgspec.json.decode(generator.transport.requests[0].body)


def node_of(reply: ScriptedReply, *, streams: bool) -> ChatNode:
    root, generator = ChatNode.root("s"), generator_of(reply)
    if not streams:
        return minillmlib.run(root.chat("u", generator, ONCE))
    stream = root.chat_streaming("u", generator, ONCE)
    list(minillmlib.iterate(stream))
    return stream.node


def read(events: list[dict[str, Any]]) -> CompletionResponse:
    return node_of(as_events(events), streams=True).response


def whole(**body: Any) -> CompletionResponse:
    return node_of(ScriptedReply.json(OK | body), streams=False).response


def sent_again(node: ChatNode) -> list[dict[str, Any]]:
    """The items of the answer in the next request to the same server."""
    leaf = node
    for call in node.tool_calls:
        leaf = leaf.add_tool_result(call.id, "212 cm")
    system, user, *items = body_of(leaf.add_user("and?"))["input"]
    assert (system["role"], user["role"]) == ("system", "user")
    kinds = ("function_call_output", "custom_tool_call_output")
    return [item for item in items[:-1] if item["type"] not in kinds]


# What is sent.


def test_nothing_is_left_at_the_server_and_its_reasoning_is_asked_for():
    body = body_of(asked("u"))
    assert body == {
        "model": "gpt-5.6-terra", "store": False, "include": ["reasoning.encrypted_content"],
        "input": [{"type": "message", "role": "system", "content": "s"},
                  {"type": "message", "role": "user", "content": "u"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "asks"),
    [("gpt-4o", False), ("gpt-4.1-mini", False), ("openai/gpt-4.1", False), ("gpt-3.5", False),
     ("chatgpt-4o-latest", False), ("gpt-5-chat-latest", False), ("gpt-5.3-chat", False),
     ("o3", True), ("gpt-5", True), ("gpt-5.6-sol", True), ("gpt-oss-20b", True), ("grok-4", True)],
)  # fmt: skip
def test_models_that_never_think_are_not_asked_for_sealed_reasoning(model, asks):
    assert ("include" in body_of(asked("u"), model=model)) == asks


def test_tools_are_flat_and_say_whether_they_are_strict():
    params = CompletionParameters(
        tools=[get_weather, ToolDefinition(name="f", strict=True)],
        tool_choice=ToolChoice.tool("f"), parallel_tool_calls=False,
    )  # fmt: skip
    body = body_of(asked("u"), params)
    weather, strict = body["tools"]
    assert (weather["type"], weather["name"], weather["strict"]) == (
        "function",
        "get_weather",
        False,
    )
    assert set(weather["parameters"]["properties"]) == {"city", "days", "unit"}
    assert weather["description"] == "The weather in a city."
    assert strict["strict"] is True
    assert strict["parameters"]["additionalProperties"] is False
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["parallel_tool_calls"] is False


def test_a_schema_is_flat_and_json_alone_is_asked_for_in_words_too():
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    form = ResponseFormat.json_schema(schema, name="tide")
    body = body_of(asked("u"), CompletionParameters(response_format=form))
    assert body["text"] == {
        "format": {"type": "json_schema", "name": "tide", "schema": schema, "strict": True}
    }
    body = body_of(asked("u"), CompletionParameters(response_format=ResponseFormat.json()))
    assert body["text"] == {"format": {"type": "json_object"}}
    assert "JSON" in body["input"][-1]["content"]


def test_media_have_the_forms_of_this_wire():
    url = "https://t.example/a"
    parts = [
        TextPart(text="see"), ImagePart.from_bytes(PNG), ImagePart(url=url, detail="low"),
        DocumentPart.from_bytes(PDF), DocumentPart(url=url), AudioPart.from_bytes(WAV),
    ]  # fmt: skip
    (*_, user) = body_of(asked(*parts))["input"]
    text, image, linked, file, linked_file, audio = user["content"]
    assert text == {"type": "input_text", "text": "see"}
    assert image == {
        "type": "input_image", "image_url": parts[1].data_url, "detail": "auto"}  # fmt: skip
    assert linked == {"type": "input_image", "image_url": url, "detail": "low"}
    assert file == {
        "type": "input_file", "filename": "document.pdf", "file_data": parts[3].data_url,
    }  # fmt: skip
    assert linked_file == {"type": "input_file", "file_url": url}
    assert audio == {
        "type": "input_audio", "input_audio": {"data": parts[5].base64, "format": "wav"}}  # fmt: skip
    with pytest.raises(InvalidParameterError, match="no video"):
        body_of(asked(TextPart(text="see"), VideoPart.from_bytes(MP4)))
    for part, problem in (
        (AudioPart(url=url), "by its bytes"),
        (AudioPart.from_bytes(b"fLaC0000"), "audio/flac"),
    ):
        with pytest.raises(InvalidParameterError, match=problem):
            body_of(asked(TextPart(text="see"), part))
    for messages in (
        [Message.system([ImagePart.from_bytes(PNG)]), Message.user("u")],
        [Message.user("u"), Message.assistant([ImagePart.from_bytes(PNG)]), Message.user("u")],
    ):
        with pytest.raises(InvalidParameterError, match="user's message"):
            body_of(ChatNode.from_messages(messages)[1])


def test_the_callers_keys_join_the_lists_and_objects_of_a_request():
    params = CompletionParameters(
        tools=[get_weather], logprobs=2, reasoning=ReasoningConfig(effort="low"),
        response_format=ResponseFormat.json_schema({"type": "object"}),
        extra={
            "tools": [{"type": "web_search"}], "include": ["web_search_call.results"],
            "text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}, "store": True,
        },
    )  # fmt: skip
    body = body_of(asked("u"), params)
    assert [tool["type"] for tool in body["tools"]] == ["function", "web_search"]
    assert body["include"] == [
        "reasoning.encrypted_content", "message.output_text.logprobs", "web_search_call.results",
    ]  # fmt: skip
    assert body["top_logprobs"] == 2
    assert body["text"].keys() == {"format", "verbosity"}
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["store"] is True
    for extra in ({"reasoning": {"effort": "high"}}, {"text": {"format": {}}}, {"input": []}):
        with pytest.raises(InvalidParameterError, match="collides"):
            body_of(asked("u"), params.replace(extra=extra))


@pytest.mark.parametrize(
    "extra",
    [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"background": True}],
)
def test_a_conversation_at_the_server_is_refused_by_name(extra):
    (name,) = extra
    with pytest.raises(InvalidParameterError, match=name):
        body_of(asked("u"), CompletionParameters(extra=extra))
    body = body_of(asked("u"), CompletionParameters(extra={name: None}))
    assert body[name] is None


def test_results_of_tools_say_that_they_failed_and_may_hold_media():
    calls = [ToolCall(id="a", name="f", arguments="{}"),
             ToolCall(id="b", name="q", arguments="SELECT 1", extra={"type": "custom"}),
             ToolCall(id="c" * 80, name="f", arguments="{}")]  # fmt: skip
    messages = [
        Message.user("u"), Message.assistant("", calls),
        Message.tool_result("a", "no tide", is_error=True),
        Message.tool_result("b", [TextPart(text="1"), ImagePart.from_bytes(PNG)], is_error=True),
        Message.tool_result("c" * 80, "ok"),
    ]  # fmt: skip
    _, one, two, three, *results = body_of(ChatNode.from_messages(messages)[1])["input"]
    assert one == {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    assert two == {"type": "custom_tool_call", "call_id": "b", "name": "q", "input": "SELECT 1"}
    assert results[0] == {
        "type": "function_call_output", "call_id": "a", "output": "Error: no tide"}  # fmt: skip
    assert (results[1]["type"], results[1]["call_id"]) == ("custom_tool_call_output", "b")
    kinds = [part["type"] for part in results[1]["output"]]
    assert kinds == ["input_text", "input_text", "input_image"]
    # An id that another provider made too long is another one, in both places.
    assert three["call_id"] == results[2]["call_id"]
    assert len(three["call_id"]) <= 64


def test_the_second_round_of_a_loop_is_the_recorded_one():
    recorded = json.loads((GOLDEN / "responses_text.json").read_text())
    sealed = recorded["output"][0]
    call = {"id": "fc_1", "type": "function_call", "status": "completed", "name": "read_gauge",
            "arguments": '{"station":"north pier"}', "call_id": "call_1"}  # fmt: skip
    for streams in (False, True):
        body = recorded | {"output": [sealed, call]}
        reply = stream_of(Random(1), body) if streams else ScriptedReply.json(body)
        node = node_of(reply, streams=streams).add_tool_result("call_1", "212 cm")
        _, _, *items = body_of(node)["input"]
        # As applications were recorded: without the ids of stored items, and without status.
        assert items == [
            {"type": "reasoning", "summary": [], "encrypted_content": sealed["encrypted_content"]},
            {"type": "function_call", "call_id": "call_1", "name": "read_gauge",
             "arguments": call["arguments"]},
            {"type": "function_call_output", "call_id": "call_1", "output": "212 cm"},
        ]  # fmt: skip


# What is read, and what goes back.


def said_by(response: CompletionResponse) -> CompletionResponse:
    return msgspec.structs.replace(response, request_report=None, attempts=(), raw_response=None)


@EXAMPLES
@given(bodies(), RANDOMS)
def test_an_answer_is_the_same_streamed_and_whole_and_its_items_go_back(body, rng):
    kept = node_of(ScriptedReply.json(body), streams=False)
    streamed = node_of(stream_of(rng, body), streams=True)
    assert said_by(streamed.response) == said_by(kept.response)
    assert streamed.message == kept.message
    response, output = kept.response, body["output"]
    texts = [part["text"] for item in output if item["type"] == "message"
             for part in item["content"]]  # fmt: skip
    assert response.content == "".join(texts)
    calls = [item for item in output if "call_id" in item]
    assert [call.id for call in response.tool_calls] == [item["call_id"] for item in calls]
    wanted = [one for item in output for one in sent_back(item)]
    while wanted and wanted[-1]["type"] == "reasoning":
        wanted.pop()
    has_end = wanted[-1:] or [{"type": "message", "role": "assistant", "content": ""}]
    if body["status"] == "completed":
        assert sent_again(kept) == (wanted or has_end)
    assert response.is_truncated == (body["status"] == "incomplete")


def test_reasoning_at_the_end_of_an_answer_does_not_go_back_and_the_report_says_so():
    reply = ScriptedReply.json((GOLDEN / "responses_incomplete_reasoning_only.json").read_bytes())
    node = node_of(reply, streams=False)
    assert node.response.reasoning_blocks
    generator = generator_of(ScriptedReply.json(OK))
    again = minillmlib.run(node.chat("go on", generator))
    body = msgspec.json.decode(generator.transport.requests[0].body)
    assert [item["type"] for item in body["input"]] == ["message"] * 4
    assert "reasoning of earlier turns" in again.response.request_report.omitted


@pytest.mark.parametrize("name", ["responses_image_generation.json"])
def test_an_image_that_the_server_made_goes_back_to_it_alone(name):
    node = node_of(ScriptedReply.json((GOLDEN / name).read_bytes()), streams=False)
    _, image, *_ = json.loads((GOLDEN / name).read_text())["output"]
    assert [item["type"] for item in sent_again(node)] == ["reasoning", "image_generation_call"]
    assert sent_again(node)[1] == image
    generator = generator_of(ScriptedReply.json(OK), model="gpt-5.5")
    again = minillmlib.run(node.chat("and?", generator))
    assert image["result"].encode() not in generator.transport.requests[0].body
    omitted = again.response.request_report.omitted
    assert omitted.keys() == {"reasoning of earlier turns", "media of earlier answers"}


def test_sealed_reasoning_is_for_the_server_and_the_model_that_made_it():
    node = node_of(ScriptedReply.json((GOLDEN / "responses_text.json").read_bytes()), streams=False)
    own = generator_of(ScriptedReply.json(OK))
    for other in (own.replace(model="gpt-5.5"), own.with_base_url("https://proxy.example/v1")):
        transport = ScriptedTransport([ScriptedReply.json(OK)])
        again = minillmlib.run(node.chat("and?", other.with_transport(transport)))
        assert b"gAAAA" not in transport.requests[0].body
        assert "reasoning of earlier turns" in again.response.request_report.omitted
    assert any(item["type"] == "reasoning" for item in sent_again(node))


# The ends of an answer.

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
ADDED = {"type": "response.output_item.added", "output_index": 0,
         "item": {"id": "msg_1", "type": "message"}}  # fmt: skip
DELTA = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0,
         "item_id": "msg_1", "delta": "a"}  # fmt: skip


def ended(status: str, **more: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "status": status, "output": [], **more}
    return {"type": f"response.{status}", "response": response}


@pytest.mark.parametrize(
    ("details", "reason", "word"),
    [({"reason": "max_output_tokens"}, "length", "max_output_tokens"),
     ({"reason": "max_tokens"}, "length", "max_tokens"),
     ({"reason": "content_filter"}, "content_filter", "content_filter"),
     ({"reason": "steered"}, "pause", "steered"), ({"reason": "max_messages"}, "pause", "max_messages"),
     ({"reason": "stop"}, "pause", "stop"), ({}, "pause", "incomplete"),
     (None, "pause", "incomplete")],
)  # fmt: skip
def test_an_incomplete_answer_is_truncated_whatever_the_reason(details, reason, word):
    end = {"status": "incomplete", "incomplete_details": details}
    for response in (whole(**end), read([CREATED, ADDED, DELTA, ended(**end)])):
        assert (response.finish_reason, response.raw_finish_reason) == (reason, word)
        assert response.is_truncated


@pytest.mark.parametrize("error", [{"code": "server_error", "message": "The tide is out"}, None])
def test_a_failed_answer_is_an_error_with_the_text_so_far(error):
    end = {"status": "failed", "error": error}
    said = "The tide is out" if error else "failed"
    with pytest.raises(ServerError, match=said):
        whole(**end, output=[])
    with pytest.raises(ServerError, match=said) as caught:
        read([CREATED, ADDED, DELTA, ended(**end)])
    assert caught.value.partial == "a"


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_an_answer_that_is_not_there_yet_is_no_answer(status):
    with pytest.raises(MalformedResponseError, match="background"):
        whole(status=status, output=[])


def test_a_cancelled_answer_is_an_error():
    with pytest.raises(ServerError, match="cancelled"):
        whole(status="cancelled", output=[])


@pytest.mark.parametrize("status", [None, "not_yet_invented"])
def test_an_answer_without_a_known_status_has_an_unknown_end(status):
    assert not whole(status=status).is_end_known


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_the_worse_of_a_status_and_the_name_of_the_last_event_counts(kind):
    end = {"type": "response.completed", "response": {"status": kind, "output": []}}
    if kind == "failed":
        with pytest.raises(ServerError):
            read([CREATED, ADDED, DELTA, end])
    else:
        assert read([CREATED, ADDED, DELTA, end]).is_truncated == (kind == "incomplete")
    end = {"type": f"response.{kind}", "response": {"status": "completed", "output": []}}
    if kind == "failed":
        with pytest.raises(ServerError):
            read([CREATED, ADDED, DELTA, end])
    else:
        assert read([CREATED, ADDED, DELTA, end]).is_truncated == (kind == "incomplete")


@pytest.mark.parametrize("mark", [b"data: [DONE]\n\n", b"", b"event: done\ndata: {}\n\n"])
def test_the_end_mark_of_another_wire_ends_no_answer(mark):
    done = {"type": "response.output_item.done", "output_index": 0, "item": OK["output"][0]}
    pieces = as_events([CREATED, ADDED, done]).pieces
    generator = generator_of(ScriptedReply.events(*pieces, mark))
    with pytest.raises(MiniLLMError) as caught:
        list(minillmlib.iterate(ChatNode.root("s").chat_streaming("u", generator, ONCE)))
    assert isinstance(caught.value, IncompleteStreamError | MalformedResponseError)
    assert caught.value.partial == "ok"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("mcp_approval_request", "pause"), ("computer_call", "pause"), ("apply_patch_call", "pause"),
     ("web_search_call", "stop"), ("compaction", "stop"), ("call_of_tomorrow", "unknown")],
)  # fmt: skip
def test_an_answer_that_ends_with_a_call_for_others_has_not_come_to_its_end(kind, reason):
    item = {"type": kind, "id": "x_1"}
    response = whole(output=[*OK["output"], item])
    assert response.finish_reason == reason
    assert [block.fields for block in response.reasoning_blocks] == [item]


# The habits of servers and relays.


def call_item(**more: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f",
            "arguments": '{"x":1}', **more}  # fmt: skip


def test_a_call_that_only_the_last_event_has_is_not_lost():
    done = {"type": "response.output_item.done", "output_index": 0, "item": OK["output"][0]}
    end = ended("completed") | {"response": OK | {"output": [*OK["output"], call_item()]}}
    response = read([CREATED, ADDED, done, end])
    assert response.content == "ok"
    assert [(call.id, call.arguments) for call in response.tool_calls] == [("c1", '{"x":1}')]
    # But a call of another id is the same one if there are no more of them.
    added = {"type": "response.output_item.added", "output_index": 0, "item": call_item()}
    end["response"] = OK | {"output": [call_item(call_id="c2")]}
    assert len(read([CREATED, added, end]).tool_calls) == 1


def test_a_text_that_only_the_last_event_has_is_not_lost():
    for before in ([], [{"type": "response.output_item.done", "output_index": 0,
                         "item": {"type": "reasoning", "summary": [], "encrypted_content": "g"}}]):  # fmt: skip
        assert read([CREATED, *before, ended("completed") | {"response": OK}]).content == "ok"


def test_items_that_only_the_last_event_has_are_kept_where_their_places_are_known():
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "g1"}
    output = [sealed, call_item(), sealed | {"encrypted_content": "g2"}, call_item(call_id="c2")]
    end = ended("completed") | {"response": OK | {"output": output}}
    response = read([CREATED, end])
    assert [call.id for call in response.tool_calls] == ["c1", "c2"]
    assert response.reasoning_blocks == ()
    assert response.extra["output"] == output
    end["response"] = OK | {"output": output[:2]}
    assert [block.fields for block in read([CREATED, end]).reasoning_blocks] == [sealed]


def test_an_item_whose_end_did_not_come_is_taken_from_the_last_event():
    added = {"type": "response.output_item.added", "output_index": 0,
             "item": {"type": "reasoning", "encrypted_content": "half"}}  # fmt: skip
    whole_item = {"type": "reasoning", "summary": [], "encrypted_content": "whole"}
    done = {"type": "response.output_item.done", "output_index": 1, "item": call_item()}
    end = ended("completed") | {"response": OK | {"output": [whole_item, call_item()]}}
    node = node_of(as_events([CREATED, added, done, end]), streams=True)
    assert [block.fields for block in node.response.reasoning_blocks] == [whole_item]
    assert sent_again(node)[0] == whole_item
    end["response"]["output"] = []
    node = node_of(as_events([CREATED, added, done, end]), streams=True)
    assert [item["type"] for item in sent_again(node)] == ["function_call"]


@pytest.mark.parametrize(
    "event",
    [{"type": "response.debug", "debug": {"x": 1}}, {"type": "response.fusion_call.queued", "x": 1},
     {"type": "codex.rate_limits", "limits": []}, {"type": "completed", "x": 1},
     {"type": "my.response.completed", "x": 1}],
)  # fmt: skip
def test_an_unknown_event_of_no_item_is_kept(event):
    response = read([CREATED, event, ADDED, DELTA, event, ended("completed")])
    assert response.content == "a"
    assert response.extra == {event["type"]: [event, event]}


@pytest.mark.parametrize("kind", ["web_search_call.searching", "reasoning_part.added", "q.delta"])
def test_an_unknown_event_of_an_item_is_repeated_by_the_end_of_the_item(kind):
    event = {"type": f"response.{kind}", "output_index": 0, "item_id": "msg_1", "delta": "b"}
    response = read([CREATED, ADDED, event, DELTA, ended("completed")])
    assert (response.content, response.extra) == ("a", {})


@pytest.mark.parametrize(
    "event",
    [
        {"id": "c", "object": "chat.completion.chunk", "choices": [{"delta": {"content": "b"}}]},
        {"type": 3},
        {"type": "response.created", "response": {"id": "resp_2"}},
        {"type": "response.output_item.added", "output_index": 1, "item": {"id": "x"}},
        {"type": "response.output_item.added", "output_index": 1},
        {"type": "response.output_text.delta", "output_index": 0, "delta": {"x": 1}},
        {"type": "response.function_call_arguments.delta", "output_index": 7, "delta": "{"},
        {"type": "response.output_item.done", "output_index": 0, "item": call_item()},
        ADDED | {"item": {"type": "reasoning"}},
        {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.content_part.done", "output_index": 0, "part": {"type": "output_hologram"}},
    ],
)  # fmt: skip
def test_what_cannot_be_a_part_of_the_answer_is_an_error(event):
    with pytest.raises(MalformedResponseError) as caught:
        read([CREATED, ADDED, DELTA, event, ended("completed")])
    assert caught.value.partial == "a"


def test_a_beginning_that_is_sent_again_changes_nothing():
    response = read([CREATED, ADDED, ADDED, DELTA, ADDED, DELTA, ended("completed")])
    assert (response.content, response.reasoning_blocks) == ("aa", ())


def test_arguments_may_be_the_object_itself():
    for response in (whole(output=[call_item(arguments={"x": 1})]),
                     read([CREATED, ended("completed") | {"response": OK | {
                         "output": [call_item(arguments={"x": 1})]}}])):  # fmt: skip
        assert [call.arguments for call in response.tool_calls] == ['{"x":1}']


def test_text_of_an_earlier_message_after_a_later_one_is_an_error():
    later = [ADDED | {"output_index": 1}, DELTA | {"output_index": 1}]
    with pytest.raises(MalformedResponseError, match="goes back"):
        read([CREATED, ADDED, DELTA, *later, DELTA, ended("completed")])


def test_a_relay_may_omit_the_beginning_of_an_item_with_text():
    thought = {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hm"}
    text = DELTA | {"output_index": 1}
    response = read([CREATED, thought, text, text, ended("completed")])
    assert (response.reasoning, response.content) == ("hm", "aa")


@pytest.mark.parametrize("output", [[{"type": "message", "content": [{"type": "output_hologram"}]}],
                                    [{"id": "x"}], [3], {"a": 1}, "ok"])  # fmt: skip
def test_a_whole_answer_of_another_shape_is_an_error(output):
    with pytest.raises(MalformedResponseError):
        whole(output=output)


@pytest.mark.parametrize(
    "body",
    [{"choices": [{"message": {"content": "a"}}]}, {}, [], None, {"object": "response.compaction"}],
)
def test_an_answer_of_another_wire_is_an_error(body):
    with pytest.raises(MalformedResponseError):
        node_of(ScriptedReply.json(body), streams=False)


def test_probabilities_are_those_of_the_tokens_once():
    token = {"token": "a", "logprob": -0.5, "bytes": [97],
             "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": [98]}]}  # fmt: skip
    part = {"type": "output_text", "text": "a", "logprobs": [token, {"token": 3}]}
    message = {"type": "message", "content": [part]}
    done = {"type": "response.output_item.done", "output_index": 0, "item": message}
    text = {"type": "response.output_text.done", "output_index": 0, "content_index": 0,
            "text": "a", "logprobs": [token]}  # fmt: skip
    responses = [
        whole(output=[message]),
        read([CREATED, ADDED, DELTA | {"logprobs": [token]}, text, done, ended("completed")]),
        read([CREATED, ADDED, DELTA, text, done, ended("completed")]),
        read([CREATED, ADDED, DELTA, done, ended("completed")]),
    ]
    for response in responses:
        (found,) = response.logprobs
        assert (found.token, found.logprob, found.bytes) == ("a", -0.5, b"a")
        assert [top.token for top in found.top] == ["b"]


def test_half_a_character_at_the_end_of_a_piece_waits_for_the_other():
    pieces = [b"\\ud83c", b"\\udf0a and ", b"\\ud83c"]
    data = b"data: " + msgspec.json.encode(DELTA | {"delta": "MARK"}) + b"\n\n"
    deltas = [data.replace(b"MARK", piece) for piece in pieces]
    start, end = as_events([CREATED, ADDED]).pieces, as_events([ended("completed")]).pieces
    node = node_of(ScriptedReply.events(*start, *deltas, *end), streams=True)
    assert node.text == "\N{WATER WAVE} and \N{REPLACEMENT CHARACTER}"


def test_a_prefix_can_be_written_to_the_cache_before_it_is_used():
    reply = ScriptedReply.json(OK | {"usage": USAGE})
    generator = generator_of(reply)
    root = ChatNode.root("s").add_user("u")
    cost = minillmlib.run(root.ensure_cached(generator))
    assert cost.cache_read_tokens == 8
    (request,) = generator.transport.requests
    assert msgspec.json.decode(request.body)["max_output_tokens"] == 16


def test_an_image_that_is_none_is_an_error():
    image = ImagePart.from_bytes(PNG).base64
    assert len(whole(output=[{"type": "image_generation_call", "result": image}]).media) == 1
    for result in ("not base64!", 3, "AAAA", f"!{image}", f"{image[:8]} {image[8:]}", image + "\n"):
        with pytest.raises(MalformedResponseError):
            whole(output=[{"type": "image_generation_call", "result": result}])
    assert whole(output=[{"type": "image_generation_call", "result": None}]).media == ()


# Counts and fees.

PRICE = TokenPrice(2, 10)


def cost_of(**body: Any):
    reply = ScriptedReply.json(OK | {"usage": USAGE} | body)
    generator = generator_of(reply).with_token_price(PRICE)
    return minillmlib.run(ChatNode.root("s").chat("u", generator, ONCE)).response.cost


@pytest.mark.parametrize(
    "body",
    [
        {"service_tier": "priority"}, {"service_tier": "auto"}, {"service_tier": "flex"},
        {"tool_usage": {"web_search": {"num_requests": 2}}},
        {"tool_usage": {"image_gen": {"total_tokens": 9}}}, {"tool_usage": {"new_tool": 1}},
        {"output": [{"type": "code_interpreter_call"}]}, {"output": [{"type": "file_search_call"}]},
        {"output": [{"type": "web_search_call"}]}, {"output": [{"type": "tool_of_tomorrow"}]},
    ],
)  # fmt: skip
def test_what_no_price_per_token_covers_makes_the_cost_unpriced(body):
    assert cost_of(**body).resolution is CostResolution.UNPRICED


@pytest.mark.parametrize(
    "body",
    [
        {}, {"service_tier": "default"}, {"service_tier": None},
        {"tool_usage": {"web_search": {"num_requests": 0}, "image_gen": {"total_tokens": 0}}},
        {"tool_usage": {"web_search": {"num_requests": 0}}, "output": [{"type": "web_search_call"}]},
        {"output": [{"type": "mcp_call"}, {"type": "reasoning", "encrypted_content": "g"}]},
    ],
)  # fmt: skip
def test_the_rest_is_priced_by_its_tokens(body):
    cost = cost_of(**body)
    assert cost.resolution is CostResolution.RESOLVED
    assert cost.cost * 1_000_000 == 40 * 2 + 9 * 10


def test_the_fee_of_a_tool_is_seen_though_a_relay_omits_the_output():
    added = {"type": "response.output_item.done", "output_index": 0,
             "item": {"type": "file_search_call"}}  # fmt: skip
    end = ended("completed", usage=USAGE)
    response = read([CREATED, added, end])
    assert response.usage.non_token_charges == "file_search_call: 1"


# Which wire a model speaks.


@pytest.mark.parametrize(
    ("model", "wire", "path"),
    [("gpt-4o", None, "chat/completions"), ("gpt-5.5", None, "chat/completions"),
     ("o3", None, "chat/completions"), ("gpt-5.6", None, "responses"),
     ("gpt-5.6-terra", None, "responses"), ("gpt-6-astra", None, "responses"),
     ("gpt-5.6", "chat", "chat/completions"), ("gpt-4o", "responses", "responses")],
)  # fmt: skip
def test_the_wire_is_chosen_by_the_model_unless_it_is_named(model, wire, path):
    generator = GeneratorInfo.openai(model, wire=wire)
    address = generator.provider.endpoint_url(generator.base_url)
    assert address == f"https://api.openai.com/v1/{path}"
    if wire is None:
        assert GeneratorInfo.from_spec(f"openai:{model}") == generator
    if wire == "responses":
        assert GeneratorInfo.from_spec(f"openai-responses:{model}") == generator
    with pytest.raises(InvalidParameterError, match="wire"):
        GeneratorInfo.openai(model, wire="telegraph")


def test_a_limit_below_the_least_is_explained():
    refusal = ScriptedReply.json(
        (GOLDEN / "responses_error_min_output_tokens.json").read_bytes(), status=400
    )
    generator = generator_of(refusal)
    with pytest.raises(minillmlib.BadRequestError, match=re.escape("no max_tokens below 16")):
        minillmlib.run(ChatNode.root("s").chat("u", generator, max_tokens=5))
    provider = ResponsesProvider()
    assert provider.capabilities.min_output_tokens("m", CompletionParameters()) == 16


def test_forcing_a_beginning_is_refused():
    with pytest.raises(InvalidParameterError, match="begins a new answer"):
        params = NodeCompletionParameters(force_prepend="A")
        minillmlib.run(ChatNode.root("s").chat("u", generator_of(), params))


def test_finish_reasons_are_derived():
    assert whole().finish_reason is FinishReason.STOP
    assert whole(output=[call_item()]).finish_reason is FinishReason.TOOL_CALLS
    refused = [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]
    response = whole(output=refused)
    assert (response.finish_reason, response.refusal) == (FinishReason.CONTENT_FILTER, "No.")


def test_a_refusal_comes_piece_by_piece():
    recorded = (GOLDEN / "responses_stream_refusal.sse").read_bytes()
    stream = ChatNode.root("s").chat_streaming("u", generator_of(ScriptedReply.events(recorded)))
    pieces = [chunk.refusal for chunk in minillmlib.iterate(stream) if chunk.refusal]
    assert pieces[:3] == ["I'm", " sorry", ","]
    assert "".join(pieces) == stream.response.refusal
