"""What a caller may ask of a completion."""

import copy
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, Self, TypeAlias, TypeGuard, TypeVar, overload

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.structured.result_type import ResultType
from minillmlib.types.attempts import CostInfo
from minillmlib.types.budget import Budget
from minillmlib.types.change import replaced
from minillmlib.types.costs import TokenPrice
from minillmlib.types.reasoning import ReasoningConfig
from minillmlib.types.routing import ProviderSettings
from minillmlib.types.tools import NAME, ToolChoice, ToolLike, as_tool, as_tool_choice

__all__ = [
    "CompletionParameters",
    "CostCallback",
    "NodeCompletionParameters",
    "ParametersLike",
    "ResponseFormat",
    "TypedParameters",
    "node_parameters",
]

T = TypeVar("T")

CostCallback: TypeAlias = Callable[[CostInfo], Awaitable[None] | None]

_FLOAT = (int, float)
_INT = (int,)

# Least values that no wire undercuts; what else a vendor allows, its server knows best.
_NUMBERS: dict[str, tuple[tuple[type, ...], float | None]] = {
    "max_tokens": (_INT, 0),
    "temperature": (_FLOAT, 0),
    "top_p": (_FLOAT, 0),
    "top_k": (_INT, 0),
    "frequency_penalty": (_FLOAT, None),
    "presence_penalty": (_FLOAT, None),
    "repetition_penalty": (_FLOAT, 0),
    "seed": (_INT, None),
}


# The numbers and switches of a call's behaviour.
_SETTINGS: dict[str, tuple[type, ...] | type[bool]] = {
    "retry": _INT,
    "exp_back_off": bool,
    "back_off_time": _FLOAT,
    "max_back_off": _FLOAT,
    "use_cache": bool,
    "cost_tracking": bool,
    "parse_json": bool,
    "allow_incomplete_json": bool,
    "crash_on_refusal": bool,
    "crash_on_empty_response": bool,
    "timeout_secs": _FLOAT,
    "progress_timeout_secs": _FLOAT,
    "deadline_secs": _FLOAT,
}


def _check_number(name: str, value: object, kinds: tuple[type, ...], least: float | None) -> None:
    if value is None:
        return
    if not _is_finite_number(value) or not isinstance(value, kinds):
        wanted = "a whole number" if kinds == _INT else "a finite number"
        raise InvalidParameterError(f"{name} must be {wanted}, not {value!r}")
    if least is not None and value < least:
        raise InvalidParameterError(f"{name} must be at least {least}, not {value!r}")


def _check_kind(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise InvalidParameterError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


def _check_format_kwargs(values: object) -> None:
    if not isinstance(values, Mapping):
        raise InvalidParameterError("format_kwargs must be a mapping of names to values")
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidParameterError(f"a placeholder's name is an identifier, not {name!r}")
        if not isinstance(value, str | int | float):
            raise InvalidParameterError(
                f"the value of the placeholder {name} must be text or a number, "
                f"not {type(value).__name__}"
            )


def _is_finite_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _checked_stop(stop: object) -> tuple[str, ...] | None:
    sequences = (stop,) if isinstance(stop, str) else stop
    if isinstance(sequences, list | tuple) and all(isinstance(s, str) for s in sequences):
        return tuple(sequences) or None
    raise InvalidParameterError(f"stop must be a sequence of strings, not {stop!r}")


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the answer: any JSON, or JSON that fits `schema`.

    `strict` asks the vendor to hold the model to the schema; `name` is what it is told it is.
    """

    schema: JsonObject | None = None
    name: str = "answer"
    strict: bool = True

    def __post_init__(self) -> None:
        _check_kind("the schema of a response_format", self.schema, dict)
        _check_kind("the strict of a response_format", self.strict, bool)
        _check_kind("the name of a response_format", self.name, str)
        if not NAME.fullmatch(self.name or ""):
            raise InvalidParameterError(
                "the name of a response_format is 1 to 64 letters, digits, _ or -, "
                f"not {self.name!r}"
            )
        msgspec.structs.force_setattr(self, "schema", copy.deepcopy(self.schema))

    @classmethod
    def json(cls) -> Self:
        """Any JSON."""
        return cls()

    @classmethod
    def json_schema(cls, schema: JsonObject, *, name: str = "answer", strict: bool = True) -> Self:
        """JSON that fits a JSON schema."""
        return cls(schema=schema, name=name, strict=strict)


class CompletionParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the model, in one vocabulary for all wires.

    A field that is not set is not sent. A field that a wire cannot carry is an
    `InvalidParameterError` that names it, before anything is sent.

    Attributes:
        max_tokens: Most tokens the model may write; each wire has its own key for it.
        temperature: Randomness, 0 or more.
        top_p: Nucleus sampling, 0 to 1.
        top_k: Sample only from so many most likely tokens.
        frequency_penalty: Against repeating tokens by their count.
        presence_penalty: Against repeating tokens at all.
        repetition_penalty: The multiplicative kind of open models.
        stop: Texts at which the model stops; they are not part of the answer.
        seed: For reproducible sampling where a server supports it.
        response_format: JSON, or JSON that fits a schema.
        reasoning: How much the model may think before it answers.
        tools: What the model may call: definitions, OpenAI's dictionaries, or typed functions.
        tool_choice: Whether it may, must or must not call one, or which.
        parallel_tool_calls: Whether it may ask for several calls at once.
        openrouter_routing: How OpenRouter chooses a provider; others ignore it.
        extra: Further keys of the request body, for what only one provider knows. A key that
            a field above also writes is an error.
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
    response_format: ResponseFormat | None = None
    reasoning: ReasoningConfig | None = None
    tools: Sequence[ToolLike] | None = None
    tool_choice: ToolChoice | str | Mapping[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    openrouter_routing: ProviderSettings | None = None
    extra: Mapping[str, JsonValue] = {}

    def __post_init__(self) -> None:
        for name, (kinds, least) in _NUMBERS.items():
            _check_number(name, getattr(self, name), kinds, least)
        if self.stop is not None:
            msgspec.structs.force_setattr(self, "stop", _checked_stop(self.stop))
        _check_kind("response_format", self.response_format, ResponseFormat)
        _check_kind("reasoning", self.reasoning, ReasoningConfig)
        _check_kind("parallel_tool_calls", self.parallel_tool_calls, bool)
        _check_kind("openrouter_routing", self.openrouter_routing, ProviderSettings)
        self._normalize_tools()
        if not isinstance(self.extra, Mapping):
            raise InvalidParameterError("extra must be a mapping of body keys to JSON values")
        msgspec.structs.force_setattr(self, "extra", dict(self.extra))

    def _normalize_tools(self) -> None:
        if self.tools is not None:
            if not isinstance(self.tools, list | tuple):
                raise InvalidParameterError("tools must be a list of tools")
            tools = tuple(as_tool(tool) for tool in self.tools) or None
            msgspec.structs.force_setattr(self, "tools", tools)
        if self.tool_choice is not None:
            choice = as_tool_choice(self.tool_choice)
            msgspec.structs.force_setattr(self, "tool_choice", choice)
        if not self.tools and (self.tool_choice, self.parallel_tool_calls) != (None, None):
            raise InvalidParameterError("tool_choice and parallel_tool_calls need tools")

    def check_only(self, *fields: str, wire: str) -> None:
        """For providers: raises `InvalidParameterError` if another field than these is set.

        OpenRouter's routing may be: everybody else ignores it, and the receipt says so.
        """
        for name in self.__struct_fields__:
            is_set = getattr(self, name) not in (None, {})
            if is_set and name not in (*fields, "openrouter_routing"):
                raise InvalidParameterError(f"{wire} has no {name}; leave it out for this provider")

    def replace(self, **changes: JsonValue) -> Self:
        """A copy with some fields changed."""
        return replaced(self, changes)

    def with_json_response(self) -> Self:
        """A copy that asks for a JSON answer."""
        return self.replace(response_format=ResponseFormat.json())

    def with_openrouter_routing(self, routing: ProviderSettings) -> Self:
        """A copy with these wishes for OpenRouter; other providers ignore them."""
        return self.replace(openrouter_routing=routing)

    def with_max_tokens(self, max_tokens: int) -> Self:
        """A copy with this limit on the answer."""
        return self.replace(max_tokens=max_tokens)

    def with_temperature(self, temperature: float) -> Self:
        """A copy with this randomness."""
        return self.replace(temperature=temperature)

    def with_stop(self, stop: Iterable[str]) -> Self:
        """A copy with these stop sequences."""
        return self.replace(stop=stop if isinstance(stop, str) else tuple(stop))


class NodeCompletionParameters(msgspec.Struct, frozen=True, kw_only=True):
    """How one call behaves, around what is asked of the model.

    Attributes:
        params: What is asked of the model.
        system_prompt: Put in front if the conversation has no system message.
        format_kwargs: Values for the `{name}`s in the conversation, filled in at call time.
            Values are text or numbers and are not looked into again; names without a value
            stay as they are. The tree keeps the unfilled text.
        parse_json: Make the text of the answer the JSON that it holds, repaired if need be. An
            answer without JSON stays as it is; one whose JSON was cut is an
            `IncompleteJsonError`. One that asks for tools is not yet the answer.
        allow_incomplete_json: Take what there is of JSON that was cut, closed as if complete.
        force_prepend: How the answer begins: the model continues from it, and it is part of
            the answer.
        use_cache: Mark the whole prompt for the provider's cache, besides the marks on nodes.
        token_price: The price of this call, before the generator's own.
        budget: What the completion, with all its attempts, must not exceed.
        cost_tracking: Whether to ask for token counts, where a wire must be asked (streams), and
            to call `cost_callback`. True unless set. A budget asks for them in any case.
        cost_callback: Called once for each completion, with its `CostInfo`, when it has ended in
            any way: answered, failed, cancelled or left. May be a coroutine function, which is
            then waited for, and cancelled after 10 s. What it raises is logged and nothing
            more. Where the provider tells a cost only later (OpenRouter, of an answer that broke
            off), the completion ends without waiting, and the callback is called then.
        retry: How often to try again what may succeed later (2 unless set; 0 is never). Nothing
            is tried again once a piece of a stream was delivered.
        exp_back_off: Whether the wait before each retry doubles.
        back_off_time: Most seconds to wait before the first retry; the wait is a random part
            of it, so that many callers do not come back at once.
        max_back_off: Most seconds to wait before any retry. If the server asks for more, the
            call fails at once, with `retry_after_secs` on its error.
        crash_on_refusal: Take an answer without JSON, or with null, "", {} or [] for all of it,
            for a failure: `NoJsonFoundError`. Calls of tools are no refusal.
        crash_on_empty_response: Take an answer that says nothing for one: `EmptyResponseError`.
        timeout_secs: Bound on each whole answer, or, when streaming, on the silence between two
            pieces. None is the default (600 whole, 120 of silence); 0 is no bound.
        progress_timeout_secs: When streaming, bound on waiting without anything new of the
            answer, for servers that only keep the connection alive. None is five times the
            bound on silence; 0 is no bound.
        deadline_secs: Bound on the whole completion, with its retries and waits. None is none.
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
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            raise InvalidParameterError("system_prompt must be a string")
        _check_format_kwargs(self.format_kwargs)
        msgspec.structs.force_setattr(self, "format_kwargs", dict(self.format_kwargs))
        _check_kind("force_prepend", self.force_prepend, str)
        if self.token_price is not None and not isinstance(self.token_price, TokenPrice):
            raise InvalidParameterError("token_price must be a TokenPrice")
        _check_kind("budget", self.budget, Budget)
        if self.cost_callback is not None and not callable(self.cost_callback):
            raise InvalidParameterError("cost_callback must be a function of one CostInfo")
        for name, kinds in _SETTINGS.items():
            if kinds is bool:
                _check_kind(name, getattr(self, name), bool)
            else:
                _check_number(name, getattr(self, name), kinds, 0)

    def replace(self, **changes: JsonValue) -> Self:
        """A copy with some fields changed."""
        return replaced(self, changes)

    def with_params(self, params: CompletionParameters) -> Self:
        """A copy that asks this of the model."""
        return self.replace(params=params)

    def with_system_prompt(self, system_prompt: str) -> Self:
        """A copy with this system message for conversations that have none."""
        return self.replace(system_prompt=system_prompt)

    def with_format_kwargs(self, format_kwargs: Mapping[str, str | int | float]) -> Self:
        """A copy that fills in these values, besides those it has."""
        return self.replace(format_kwargs={**self.format_kwargs, **format_kwargs})

    def with_format_kwarg(self, name: str, value: str | float) -> Self:
        """A copy that fills in one more value."""
        return self.with_format_kwargs({name: value})

    def with_parse_json(self, parse_json: bool) -> Self:  # noqa: FBT001 - the guide's signature
        """A copy that makes the text of the answer its JSON, repaired, or does not."""
        return self.replace(parse_json=parse_json)

    def expecting_json(self) -> Self:
        """A copy that asks for JSON, where no other form is asked for, and repairs the answer."""
        is_free = self.params.response_format is None
        params = self.params.with_json_response() if is_free else self.params
        return self.replace(params=params, parse_json=True)

    @overload
    def expecting(self, kind: type[T]) -> "TypedParameters[T]": ...

    @overload
    def expecting(self, kind: object) -> "TypedParameters[JsonValue]": ...

    def expecting(self, kind: JsonValue) -> "TypedParameters[JsonValue]":
        """Settings with which a call gives a `ParsedNode`, whose `parsed` is a `kind`.

        A dataclass, TypedDict, msgspec Struct, pydantic model, enum, plain type, or a collection
        or union of them. Its JSON schema goes to the model: as the form of the answer where the
        wire can hold the model to it, else as a part of the prompt. An answer that does not fit
        goes back to the model with what is wrong, and is asked for again, as `retry` allows: see
        `ResponseValidationError`. `InvalidParameterError` for what no JSON can be read into.
        To make them takes half a millisecond, once for any number of calls.
        """
        values = {name: getattr(self, name) for name in NodeCompletionParameters.__struct_fields__}
        return TypedParameters(**values, result_type=ResultType(kind))

    def with_force_prepend(self, text: str) -> Self:
        """A copy in which the model continues from this beginning."""
        return self.replace(force_prepend=text)

    def with_cache(self, use_cache: bool) -> Self:  # noqa: FBT001 - the guide's signature
        """A copy that marks the whole prompt for the provider's cache, or does not."""
        return self.replace(use_cache=use_cache)

    def with_cost_tracking(self, cost_tracking: bool) -> Self:  # noqa: FBT001 - the guide's
        """A copy that asks for token counts and tells its callback of them, or does not."""
        return self.replace(cost_tracking=cost_tracking)

    def with_cost_callback(self, cost_callback: CostCallback) -> Self:
        """A copy that tells this function what each completion cost."""
        return self.replace(cost_callback=cost_callback)

    def with_token_price(self, token_price: TokenPrice) -> Self:
        """A copy with this price, which goes before the generator's own."""
        return self.replace(token_price=token_price)


class TypedParameters(NodeCompletionParameters, Generic[T], frozen=True, kw_only=True):
    """The settings of a call whose answer is to have a type; made by `expecting`."""

    result_type: ResultType[T]

    def untyped(self) -> NodeCompletionParameters:
        """The same settings for an answer of any form."""
        values = {name: getattr(self, name) for name in NodeCompletionParameters.__struct_fields__}
        return NodeCompletionParameters(**values)


ParametersLike: TypeAlias = NodeCompletionParameters | CompletionParameters | None

_DEFAULTS = NodeCompletionParameters()


def node_parameters(params: ParametersLike) -> NodeCompletionParameters:
    """The full settings of a call from what a caller may pass for them."""
    match params:
        case None:
            return _DEFAULTS
        case NodeCompletionParameters():
            return params
        case CompletionParameters():
            return NodeCompletionParameters(params=params)
    raise InvalidParameterError(
        "params must be CompletionParameters or NodeCompletionParameters, "
        f"not {type(params).__name__}"
    )
