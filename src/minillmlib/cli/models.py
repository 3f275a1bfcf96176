"""Chooses the generator of a command by its options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from minillmlib import GeneratorInfo, InvalidParameterError, MissingExtraError, TokenPrice
from minillmlib.cli import terminal
from minillmlib.cli.tree_view import DIM
from minillmlib.local import check_engine
from minillmlib.providers.presets import find_preset
from minillmlib.providers.published_prices import NoPublishedPriceError, find_price

MODEL_VARIABLE = "MINILLMLIB_MODEL"
DEMO_LINE = (
    "This is SmolLM2-135M, a tiny demo model. "
    f"For a real one: --model openai:gpt-4o-mini, or set {MODEL_VARIABLE}."
)


def choose_generator(
    model: str | None, *, base_url: str | None, key_env: str | None, price: str | None
) -> GeneratorInfo:
    """Return the generator that the options name, by default that of the demo model."""
    if model is None and base_url is None:
        check_engine()
        terminal.show_line(DEMO_LINE, DIM)
        return GeneratorInfo.local()
    if model is not None and "," in model:
        _refuse_options({"--base-url": base_url, "--key-env": key_env, "--price": price})
    generator = _find_generator(model, base_url)
    if key_env is not None:
        generator = _with_key(generator, key_env)
    if price is not None:
        return generator.with_token_price(_parse_price(price))
    fallbacks = tuple(map(_with_listed_price, generator.fallbacks))
    return _with_listed_price(generator).replace(fallbacks=fallbacks)


def _refuse_options(options: Mapping[str, str | None]) -> None:
    """Refuse the options that are for one model, where there are several."""
    for name, value in options.items():
        if value is not None:
            raise InvalidParameterError(
                f"{name} is for one model, and --model names several; omit one of them (a server "
                "of your own is custom:URL:MODEL)"
            )


def _find_generator(model: str | None, base_url: str | None) -> GeneratorInfo:
    if model is None:
        raise InvalidParameterError(
            "--base-url needs the name of a model at that server; name it with --model"
        )
    if base_url is None:
        return GeneratorInfo.from_spec(model)
    name = model.partition(":")[0]
    if name in ("local", "custom", "completions") and (model == name or ":" in model):
        raise InvalidParameterError(
            f"--base-url does not fit --model {name}:..., which has its own address; omit one"
        )
    if find_preset(name) is not None and ":" in model:
        return GeneratorInfo.from_spec(model).with_base_url(base_url)
    return GeneratorInfo.custom("custom", base_url, model)


def _with_key(generator: GeneratorInfo, variable: str) -> GeneratorInfo:
    if not variable.isidentifier() or not os.environ.get(variable, "").strip():
        raise InvalidParameterError(
            "--key-env takes the name of an environment variable that holds the key, and "
            "the one that was given is not set"
        )
    return generator.with_api_key_from_env(variable)


def _parse_price(price: str) -> TokenPrice:
    amounts = price.split(",")
    if len(amounts) == 2:
        with suppress(InvalidParameterError):
            return TokenPrice(*map(str.strip, amounts))
    raise InvalidParameterError(
        "--price takes the dollars for a million tokens of input and of output, for example "
        f"0.15,0.60, not {price!r:.60}"
    )


def _with_listed_price(generator: GeneratorInfo) -> GeneratorInfo:
    """Return a copy with the published price, if it has none and the table has one."""
    if generator.token_price is not None:
        return generator
    with suppress(MissingExtraError, NoPublishedPriceError):
        return generator.with_token_price(find_price(generator.base_url, generator.model))
    return generator
