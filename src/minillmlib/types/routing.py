"""How OpenRouter chooses among the providers of a model."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.values import check_choice, check_kind, replace


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """OpenRouter's choice of a provider: its `provider` object. Unset fields are not sent.

    Attributes:
        fallback_models: Models to try, in this order, if the generator's model fails. `model` of
            the answer names the one that served.
        order: Providers to try, in this order.
        only: The only providers that may serve.
        ignore: Providers that may not serve.
        allow_fallbacks: Whether other providers may serve if these cannot.
        require_parameters: Whether to use only providers that know every parameter sent. Others
            silently drop unknown parameters.
        data_collection: `"deny"` excludes providers that may keep prompts.
        zdr: Whether to use only providers with zero data retention.
        quantizations: The precisions allowed, such as `fp8`.
        sort: The preference: `"price"`, `"throughput"` or `"latency"`.
        max_price: The maximum prices in USD per million tokens, by OpenRouter's keys.
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
                msgspec.structs.force_setattr(self, name, _check_slugs(name, slugs))
        for name in ("allow_fallbacks", "require_parameters", "zdr"):
            check_kind(name, getattr(self, name), bool)
        check_choice("data_collection", self.data_collection, ("allow", "deny"))
        check_choice("sort", self.sort, ("price", "throughput", "latency"))
        if not isinstance(self.max_price, Mapping | None):
            raise InvalidParameterError("max_price must be a mapping of names to USD")

    def replace(self, **changes: JsonValue) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)

    def sort_by_throughput(self) -> Self:
        """Return a copy that prefers the fastest provider."""
        return self.replace(sort="throughput")

    def deny_data_collection(self) -> Self:
        """Return a copy that excludes providers that may keep prompts."""
        return self.replace(data_collection="deny")

    def as_body(self) -> JsonObject:
        """Return the keys of the request body."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        sent = {name: value for name, value in fields.items() if value is not None}
        models = sent.pop("fallback_models", None)
        return ({"provider": sent} if sent else {}) | ({"models": models} if models else {})


def _check_slugs(name: str, slugs: object) -> tuple[str, ...]:
    if isinstance(slugs, list | tuple) and all(isinstance(slug, str) for slug in slugs):
        return tuple(slugs)
    raise InvalidParameterError(f"{name} must be a list of names, not {slugs!r}")
