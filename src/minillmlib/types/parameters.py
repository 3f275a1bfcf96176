"""The settings of a completion."""

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Generic, Self, TypeAlias, TypeVar, overload

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.structured.result_type import ResultType
from minillmlib.types.budgets import Budget
from minillmlib.types.costs import CostInfo, TokenPrice
from minillmlib.types.pace import Pace
from minillmlib.types.reasoning import ReasoningConfig
from minillmlib.types.routing import ProviderSettings
from minillmlib.types.tools import NAME, ToolChoice, ToolLike, as_tool, as_tool_choice
from minillmlib.types.values import check_fields, check_kind, check_number, copy_nested, replace

T = TypeVar("T")

CostCallback: TypeAlias = Callable[[CostInfo], Awaitable[None] | None]


def _check_format_kwargs(values: object) -> None:
    if not isinstance(values, Mapping):
        raise InvalidParameterError("format_kwargs must be a mapping of names to values")
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidParameterError(
                f"the name of a placeholder must be an identifier, not {name!r}"
            )
        if not isinstance(value, str | Real):
            raise InvalidParameterError(
                f"the value of the placeholder {name} must be text or a number, "
                f"not {type(value).__name__}"
            )


def _normalize_stop(stop: object) -> tuple[str, ...] | None:
    sequences = (stop,) if isinstance(stop, str) else stop
    if isinstance(sequences, list | tuple) and all(isinstance(s, str) for s in sequences):
        return tuple(sequences) or None
    raise InvalidParameterError(f"stop must be a sequence of strings, not {stop!r}")


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The format of the answer: any JSON, or JSON that fits `schema`.

    `strict` asks the vendor to enforce the schema; `name` is the name that the model sees.
    """

    schema: JsonObject | None = None
    name: str = "answer"
    strict: bool = True

    def __post_init__(self) -> None:
        check_kind("the schema of a response_format", self.schema, dict)
        check_kind("the strict of a response_format", self.strict, bool)
        check_kind("the name of a response_format", self.name, str)
        if not NAME.fullmatch(self.name or ""):
            raise InvalidParameterError(
                "the name of a response_format must be 1 to 64 letters, digits, _ or -, "
                f"not {self.name!r}"
            )
        msgspec.structs.force_setattr(self, "schema", copy.deepcopy(self.schema))

    @classmethod
    def json(cls) -> Self:
        """Return the format of any JSON."""
        return cls()

    @classmethod
    def json_schema(cls, schema: JsonObject, *, name: str = "answer", strict: bool = True) -> Self:
        """Return the format of JSON that fits a schema."""
        return cls(schema=schema, name=name, strict=strict)


_Check: TypeAlias = Callable[[str, object], None]

_count: _Check = partial(check_number, minimum=0, is_whole=True)
_amount: _Check = partial(check_number, minimum=0)
_text: _Check = partial(check_kind, kind=str)
_switch: _Check = partial(check_kind, kind=bool)

# Types and minimum values on any wire. Further limits are up to the server.
_PARAMETER_CHECKS: dict[str, _Check] = {
    "max_tokens": _count,
    "temperature": _amount,
    "top_p": _amount,
    "top_k": _count,
    "frequency_penalty": check_number,
    "presence_penalty": check_number,
    "repetition_penalty": _amount,
    "seed": partial(check_number, is_whole=True),
    "logprobs": _count,
    "response_format": partial(check_kind, kind=ResponseFormat),
    "reasoning": partial(check_kind, kind=ReasoningConfig),
    "parallel_tool_calls": _switch,
    "openrouter_routing": partial(check_kind, kind=ProviderSettings),
}
_SETTING_CHECKS: dict[str, _Check] = {
    "system_prompt": _text,
    "parse_json": _switch,
    "allow_incomplete_json": _switch,
    "force_prepend": _text,
    "use_cache": _switch,
    "token_price": partial(check_kind, kind=TokenPrice),
    "budget": partial(check_kind, kind=Budget),
    "pace": partial(check_kind, kind=Pace),
    "cost_tracking": _switch,
    "retry": _count,
    "exp_back_off": _switch,
    "back_off_time": _amount,
    "max_back_off": _amount,
    "crash_on_refusal": _switch,
    "crash_on_empty_response": _switch,
    "timeout_secs": _amount,
    "progress_timeout_secs": _amount,
    "deadline_secs": _amount,
}


class CompletionParameters(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """The parameters of the model, in one vocabulary for all wires.

    Unset fields are not sent. A field that a wire cannot carry raises an `InvalidParameterError`
    that names it, before anything is sent.

    Attributes:
        max_tokens: Maximum tokens of the answer; the key differs from wire to wire.
        temperature: Randomness, 0 or more.
        top_p: Nucleus sampling, 0 to 1.
        top_k: Number of most likely tokens to sample from.
        frequency_penalty: Penalty for repeated tokens, in proportion to their count.
        presence_penalty: Penalty for any repeated token.
        repetition_penalty: The multiplicative penalty of open models.
        stop: Texts at which the model stops. They are not part of the answer.
        seed: Seed for reproducible sampling, where a server supports it.
        logprobs: Send the probability of each token of the answer, with those of so many
            alternatives; 0 is only the token's own.
        response_format: JSON, or JSON that fits a schema.
        reasoning: The amount of reasoning before the answer.
        tools: The tools: definitions, OpenAI's dictionaries, or typed functions.
        tool_choice: Whether the model may, must or must not call a tool, or which one.
        parallel_tool_calls: Whether it may make several calls at once.
        openrouter_routing: OpenRouter's choice of a provider; other providers ignore it.
        extra: Further keys of the request body. A key that a field also writes is an error.

    Examples:
        >>> params = CompletionParameters(max_tokens=100, stop=["END"])
        >>> params.with_temperature(0).temperature
        0
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: Sequence[str] | None = None
    seed: int | None = None
    logprobs: int | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningConfig | None = None
    tools: Sequence[ToolLike] | None = None
    tool_choice: ToolChoice | str | Mapping[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    openrouter_routing: ProviderSettings | None = None
    extra: Mapping[str, JsonValue] = {}

    def __post_init__(self) -> None:
        check_fields(self, _PARAMETER_CHECKS)
        if self.stop is not None:
            msgspec.structs.force_setattr(self, "stop", _normalize_stop(self.stop))
        self._normalize_tools()
        if not isinstance(self.extra, Mapping):
            raise InvalidParameterError("extra must be a mapping of body keys to JSON values")
        if self.extra:
            msgspec.structs.force_setattr(self, "extra", copy_nested("extra", self.extra))

    def _normalize_tools(self) -> None:
        if self.tools is not None:
            if not isinstance(self.tools, list | tuple):
                raise InvalidParameterError("tools must be a list of tools")
            tools = tuple(as_tool(tool) for tool in self.tools) or None
            msgspec.structs.force_setattr(self, "tools", tools)
        if self.tool_choice is not None:
            choice = as_tool_choice(self.tool_choice)
            msgspec.structs.force_setattr(self, "tool_choice", choice)

    def check_only(self, *fields: str, wire: str) -> None:
        """Raise `InvalidParameterError` if any other field is set. For providers.

        `openrouter_routing` is always allowed: other providers ignore it and report that.
        """
        for name in self.__struct_fields__:
            is_set = getattr(self, name) not in (None, {})
            if is_set and name not in (*fields, "openrouter_routing"):
                raise InvalidParameterError(f"{wire} has no {name}; leave it out for this provider")

    def replace(self, **changes: JsonValue) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)

    def with_json_response(self) -> Self:
        """Return a copy that asks for a JSON answer."""
        return self.replace(response_format=ResponseFormat.json())

    def with_openrouter_routing(self, routing: ProviderSettings) -> Self:
        """Return a copy with these settings for OpenRouter; other providers ignore them."""
        return self.replace(openrouter_routing=routing)

    def with_max_tokens(self, max_tokens: int) -> Self:
        """Return a copy with this limit on the answer."""
        return self.replace(max_tokens=max_tokens)

    def with_temperature(self, temperature: float) -> Self:
        """Return a copy with this randomness."""
        return self.replace(temperature=temperature)

    def with_stop(self, stop: Iterable[str]) -> Self:
        """Return a copy with these stop sequences."""
        return self.replace(stop=stop if isinstance(stop, str) else tuple(stop))


# The fields that a call may give as keywords.
CALL_FIELDS = ("temperature", "max_tokens", "tools", "retry", "timeout_secs")


class NodeCompletionParameters(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one call, around the parameters of the model.

    Attributes:
        params: The parameters of the model.
        system_prompt: System message for a conversation that has none.
        format_kwargs: Values, text or numbers, for the placeholders `{name}` in the conversation,
            filled in once at call time; the tree keeps the placeholders. Names without a value
            stay as they are.
        parse_json: Replace the text of the answer by its JSON, repaired if necessary. An answer
            without JSON or with tool calls stays. Truncated JSON raises `IncompleteJsonError`.
        allow_incomplete_json: Accept truncated JSON, closed as if it were complete.
        force_prepend: The start of the answer, from which the model continues.
        use_cache: Whether to set a cache breakpoint at the end of the prompt, besides those of
            the nodes.
        token_price: The price of this call. It takes precedence over the generator's, and is
            refused if that has fallbacks.
        budget: The budget that covers the completion with all its attempts.
        pace: The pace that each attempt waits for before it is sent. A 429 then neither counts as
            a retry nor needs one: the request waits again, as long as `deadline_secs` allows.
        cost_tracking: Whether to ask for token counts, where a wire must be asked (streams), and
            to call `cost_callback`. A budget asks for them in any case.
        cost_callback: Function called with the `CostInfo` once for each completion, however it
            ends. A coroutine function is awaited, and cancelled after 10 s. Its exceptions are
            only logged. If the provider publishes a cost later (OpenRouter, for an interrupted
            answer), the call comes later and the completion does not wait.
        retry: Number of retries after errors that may pass (default 2; 0 is none). There is no
            retry once a chunk of a stream was delivered.
        exp_back_off: Whether the maximum wait doubles with each retry.
        back_off_time: Maximum seconds to wait before the first retry. The wait is a random part
            of it, so that many callers do not retry at the same time.
        max_back_off: Maximum seconds to wait before any retry. If the server asks for more, the
            call fails at once, with `retry_after_secs` on its error.
        crash_on_refusal: Raise `NoJsonFoundError` for an answer without JSON, or whose JSON is
            null, "", {} or []. Tool calls are not a refusal.
        crash_on_empty_response: Raise `EmptyResponseError` for an answer without content.
        timeout_secs: Maximum seconds for a whole answer, or, when streaming, between two pieces of
            it. None is the default (600 whole, 120 streaming); 0 is no bound.
        progress_timeout_secs: When streaming, maximum seconds without new content, for servers
            that only keep the connection alive. None is five times `timeout_secs`, 0 no bound.
        deadline_secs: Maximum seconds for the completion with its retries. None is no bound.

    Examples:
        >>> settings = NodeCompletionParameters(retry=0, timeout_secs=30)
        >>> settings.with_system_prompt("Be brief.").system_prompt
        'Be brief.'
    """

    params: CompletionParameters = CompletionParameters()
    system_prompt: str | None = None
    format_kwargs: Mapping[str, str | int | float] = {}
    parse_json: bool = False
    allow_incomplete_json: bool = False
    force_prepend: str | None = None
    use_cache: bool = False
    token_price: TokenPrice | None = None
    budget: Budget | None = None
    pace: Pace | None = None
    cost_tracking: bool = True
    cost_callback: CostCallback | None = None
    retry: int | None = None
    exp_back_off: bool = True
    back_off_time: float = 1.0
    max_back_off: float = 15.0
    crash_on_refusal: bool = False
    crash_on_empty_response: bool = False
    timeout_secs: float | None = None
    progress_timeout_secs: float | None = None
    deadline_secs: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.params, CompletionParameters):
            raise InvalidParameterError("params must be a CompletionParameters")
        check_fields(self, _SETTING_CHECKS)
        if self.cost_callback is not None and not callable(self.cost_callback):
            raise InvalidParameterError("cost_callback must be a function of one CostInfo")
        _check_format_kwargs(self.format_kwargs)
        msgspec.structs.force_setattr(self, "format_kwargs", dict(self.format_kwargs))

    def replace(self, **changes: JsonValue) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)

    def with_fields(self, fields: Mapping[str, object]) -> Self:
        """Return a copy with fields of its own or of `params` changed; None changes nothing."""
        given = {name: value for name, value in fields.items() if value is not None}
        own = {name: given.pop(name) for name in tuple(given) if name in self.__struct_fields__}
        return self.replace(**own, params=self.params.replace(**given))

    def with_params(self, params: CompletionParameters) -> Self:
        """Return a copy with these parameters of the model."""
        return self.replace(params=params)

    def with_system_prompt(self, system_prompt: str) -> Self:
        """Return a copy with this system message for conversations that have none."""
        return self.replace(system_prompt=system_prompt)

    def with_format_kwargs(self, format_kwargs: Mapping[str, str | int | float]) -> Self:
        """Return a copy with more placeholder values."""
        return self.replace(format_kwargs={**self.format_kwargs, **format_kwargs})

    def with_format_kwarg(self, name: str, value: str | float) -> Self:
        """Return a copy with one more placeholder value."""
        return self.with_format_kwargs({name: value})

    def with_parse_json(self, parse_json: bool) -> Self:  # noqa: FBT001 - the guide's signature
        """Return a copy that replaces the text of the answer by its JSON, or not."""
        return self.replace(parse_json=parse_json)

    def expecting_json(self) -> Self:
        """Return a copy that asks for JSON, unless a format is set, and parses the answer."""
        is_free = self.params.response_format is None
        params = self.params.with_json_response() if is_free else self.params
        return self.replace(params=params, parse_json=True)

    @overload
    def expecting(self, kind: type[T]) -> "TypedParameters[T]": ...

    @overload
    def expecting(self, kind: object) -> "TypedParameters[JsonValue]": ...

    def expecting(self, kind: JsonValue) -> "TypedParameters[JsonValue]":
        """Return settings with which a call returns a `ParsedNode`, whose `parsed` is a `kind`.

        `kind` is a dataclass, TypedDict, msgspec Struct, pydantic model, enum, plain type, or a
        collection or union of them, with constraints in `Annotated`; what cannot be told to the
        model and checked raises `InvalidParameterError`. Its JSON schema is
        sent as the response format where the wire can enforce it, and otherwise in the prompt. A
        wrong answer goes back to the model with the problem, as often as `retry` allows; see
        `ResponseValidationError`. This takes some milliseconds, once for any number of calls.

        Examples:
            >>> params = NodeCompletionParameters().expecting(int)
            >>> question = ChatNode.root().add_user("How many legs has a spider?")
            >>> run(question.complete(GeneratorInfo.openai("gpt-4o-mini"), params)).parsed
            8
        """
        return TypedParameters(**{**msgspec.structs.asdict(self), "result_type": ResultType(kind)})

    def with_force_prepend(self, text: str) -> Self:
        """Return a copy in which the answer starts with this text."""
        return self.replace(force_prepend=text)

    def with_cache(self, use_cache: bool) -> Self:  # noqa: FBT001 - the guide's signature
        """Return a copy that sets a cache breakpoint at the end of the prompt, or not."""
        return self.replace(use_cache=use_cache)

    def with_cost_tracking(self, cost_tracking: bool) -> Self:  # noqa: FBT001 - the guide's
        """Return a copy that asks for token counts and calls the callback, or not."""
        return self.replace(cost_tracking=cost_tracking)

    def with_cost_callback(self, cost_callback: CostCallback) -> Self:
        """Return a copy that calls this function with the cost of each completion."""
        return self.replace(cost_callback=cost_callback)

    def with_token_price(self, token_price: TokenPrice) -> Self:
        """Return a copy with this price, which takes precedence over the generator's."""
        return self.replace(token_price=token_price)


class TypedParameters(NodeCompletionParameters, Generic[T], frozen=True, kw_only=True):
    """The settings of a call whose answer has a type. Made by `expecting`."""

    result_type: ResultType[T]

    def without_type(self) -> NodeCompletionParameters:
        """Return the settings without the type."""
        values = {name: getattr(self, name) for name in NodeCompletionParameters.__struct_fields__}
        return NodeCompletionParameters(**values)


ParametersLike: TypeAlias = NodeCompletionParameters | CompletionParameters | None

DEFAULT_PARAMETERS = NodeCompletionParameters()


def node_parameters(params: ParametersLike) -> NodeCompletionParameters:
    """Return the full settings of a call from either kind of parameters."""
    match params:
        case None:
            return DEFAULT_PARAMETERS
        case NodeCompletionParameters():
            return params
        case CompletionParameters():
            return NodeCompletionParameters(params=params)
    raise InvalidParameterError(
        "params must be CompletionParameters or NodeCompletionParameters, "
        f"not {type(params).__name__}"
    )
