"""The facts in which servers of the chat-completions wire differ."""

from collections.abc import Mapping

import msgspec

from minillmlib.protocols.fields import FIELDS
from minillmlib.types.reasoning import BLOCK_KEYS, REQUIRED_KEY, Reasoning
from minillmlib.types.values import check_choice

_PLAIN = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed")
OPENAI_FIELDS = {"max_tokens": "max_completion_tokens"} | {name: name for name in _PLAIN}
# Most compatible servers know `max_tokens` only: some refuse OpenAI's newer key (Mistral), others
# pass over it and write without a limit (DeepSeek, llama-cpp-python, Ollama).
ALL_FIELDS = OPENAI_FIELDS | {name: name for name in ("max_tokens", "top_k", "repetition_penalty")}
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")  # of OpenAI, OpenRouter

AS_SENT = "as_sent"
REASONING_ECHOES = (REQUIRED_KEY, "reasoning", *BLOCK_KEYS, AS_SENT)
# The keys under which `as_sent` sends reasoning back. DeepSeek, Kimi and GLM demand
# `reasoning_content` beside tool calls; MiniMax, OpenRouter and LiteLLM want their blocks. Under
# `reasoning` nobody demands it, and Groq refuses it (gptel#774, freellmapi#1070).
REPLAYED_KEYS = (REQUIRED_KEY, *BLOCK_KEYS)


class MessageCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The content beside text that messages may hold, and the limits of tool calls.

    Attributes:
        images: The types of images that the server takes by their bytes; None leaves it to the
            server.
        audio: The audio types that the server takes.
        has_video: Whether it takes films.
        has_document_urls: Whether it fetches documents by their URL.
        has_tool_media: Whether a tool's result may hold more than text.
        tool_id_chars: The length that the id of a tool call may have; a longer one is replaced,
            alike in the call and in its result, unless this server made it.
        has_exact_tool_ids: Whether such an id must be just so long, of ASCII letters and digits.
        has_null_content: Whether a message with tool calls and no text has the content null, since
            GLM and MiniMax refuse `""` (earendil-works/pi#3365); else it is `""`.
        has_answer_images: Whether images that the model made go back with its message.
    """

    images: tuple[str, ...] | None = None
    audio: tuple[str, ...] = ("wav", "mp3")
    has_video: bool = False
    has_document_urls: bool = False
    has_tool_media: bool = False
    tool_id_chars: int = 40
    has_exact_tool_ids: bool = False
    has_null_content: bool = True
    has_answer_images: bool = False


class ChatDialect(msgspec.Struct, frozen=True, kw_only=True):
    """The facts in which servers of this wire differ.

    Attributes:
        name: The name of the wire in error messages.
        fields: The generation fields that the server takes, and its keys for them.
        has_stream_options: Whether usage in a stream must be requested by `stream_options`.
        messages: The content that its messages may hold.
        has_reasoning_object: Whether it takes a `reasoning` object, with a budget, in place of
            `reasoning_effort`.
        reasoning_echo: The key under which an assistant's reasoning goes back to it:
            `reasoning_details` or `thinking_blocks` its blocks, `reasoning_content` or `reasoning`
            its text. `as_sent`: the key under which the server sent it, if it is one that servers
            want back. None: never.
    """

    name: str = "the chat-completions wire"
    fields: Mapping[str, str] = msgspec.field(default_factory=lambda: ALL_FIELDS)
    has_stream_options: bool = True
    messages: MessageCapabilities = MessageCapabilities()
    has_reasoning_object: bool = False
    reasoning_echo: str | None = AS_SENT

    def __post_init__(self) -> None:
        check_choice("reasoning_echo", self.reasoning_echo, REASONING_ECHOES)
        for name in self.fields:
            check_choice("a name in the fields of a ChatDialect", name, FIELDS)

    def echo_key(self, reasoning: Reasoning | None, *, has_calls: bool) -> str | None:
        """Return the key under which a message's reasoning goes back, or None if it does not."""
        key = self.reasoning_echo
        if key != AS_SENT:
            return key
        if reasoning is None or reasoning.key not in REPLAYED_KEYS:
            return None
        # Nobody demands its text without calls, and DeepSeek's R1 refused it (kelivo#966).
        return reasoning.key if has_calls or reasoning.key in BLOCK_KEYS else None
