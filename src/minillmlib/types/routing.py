"""How OpenRouter chooses among the providers of a model."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.change import replaced

__all__ = ["ProviderSettings"]


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How OpenRouter chooses who answers: its `provider` object. What is not set is not sent.

    Attributes:
        fallback_models: Models to try, in this order, when the generator's own fails; the
            answer's `model` tells which one served.
        order: Providers to try, in this order.
        only: The only providers allowed.
        ignore: Providers not to use.
        allow_fallbacks: Whether others may serve when these cannot.
        require_parameters: Use only providers that know every parameter sent; the others drop
            what they do not know in silence.
        data_collection: `"deny"` leaves out providers that may keep prompts.
        zdr: Only providers with zero data retention.
        quantizations: The precisions allowed, such as `fp8`.
        sort: What to prefer: `"price"`, `"throughput"` or `"latency"`.
        max_price: The highest prices, in USD per million tokens, by OpenRouter's keys.
    """

    fallback_models: Sequence[str] | None = None
    order: Sequence[str] | None = None
    only: Sequence[str] | None = None
    ignore: Sequence[str] | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    zdr: bool | None = None
    quantizations: Sequence[str] | None = None
    sort: Literal["price", "throughput", "latency"] | None = None
    max_price: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name in ("fallback_models", "order", "only", "ignore", "quantizations"):
            slugs = getattr(self, name)
            if slugs is not None:
                msgspec.structs.force_setattr(self, name, _checked_slugs(name, slugs))
        for name in ("allow_fallbacks", "require_parameters", "zdr"):
            _check_choice(name, getattr(self, name), (True, False))
        _check_choice("data_collection", self.data_collection, ("allow", "deny"))
        _check_choice("sort", self.sort, ("price", "throughput", "latency"))
        if not isinstance(self.max_price, Mapping | None):
            raise InvalidParameterError("max_price must be a mapping of kinds to USD")

    def replace(self, **changes: JsonValue) -> Self:
        """A copy with some fields changed."""
        return replaced(self, changes)

    def sort_by_throughput(self) -> Self:
        """A copy that prefers the fastest provider."""
        return self.replace(sort="throughput")

    def deny_data_collection(self) -> Self:
        """A copy that leaves out providers that may keep prompts."""
        return self.replace(data_collection="deny")

    def as_body(self) -> JsonObject:
        """The keys of the body that say it."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        sent = {name: value for name, value in fields.items() if value is not None}
        models = sent.pop("fallback_models", None)
        return ({"provider": sent} if sent else {}) | ({"models": models} if models else {})


def _checked_slugs(name: str, slugs: object) -> tuple[str, ...]:
    if isinstance(slugs, list | tuple) and all(isinstance(slug, str) for slug in slugs):
        return tuple(slugs)
    raise InvalidParameterError(f"{name} must be a list of names, not {slugs!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value is not None and (type(value), value) not in [(type(c), c) for c in choices]:
        allowed = " or ".join(map(repr, choices))
        raise InvalidParameterError(f"{name} must be {allowed}, not {value!r}")
