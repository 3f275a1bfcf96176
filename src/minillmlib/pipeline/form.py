"""How a model is told the type that its answer is to have."""

from __future__ import annotations

from typing import NamedTuple

from minillmlib.generator import GeneratorInfo
from minillmlib.values.expected import Expected
from minillmlib.values.json import JsonValue
from minillmlib.values.parameters import NodeCompletionParameters, ResponseFormat, TypedParameters

__all__ = ["Formed", "formed"]

INSTRUCTION = """Answer with JSON and nothing else. It must fit this JSON schema:
{schema}"""


class Formed(NamedTuple):
    """The settings with the form of the answer.

    `instruction` tells the form in the prompt where the wire does not, for the reason
    `left_out`.
    """

    settings: NodeCompletionParameters
    expected: Expected[JsonValue] | None = None
    instruction: str | None = None
    left_out: str | None = None


def formed(settings: NodeCompletionParameters, generator: GeneratorInfo) -> Formed:
    """The settings as they are, unless they expect a type."""
    if not isinstance(settings, TypedParameters):
        return Formed(settings)
    expected: Expected[JsonValue] = settings.expected
    untyped = settings.untyped()
    form = ResponseFormat.json_schema(expected.schema, strict=expected.is_strict)
    left_out = _why_not(form, untyped, generator)
    if left_out is None:
        return Formed(untyped.with_params(untyped.params.replace(response_format=form)), expected)
    instruction = INSTRUCTION.format(schema=expected.schema_text)
    return Formed(untyped, expected, instruction, f"{left_out}; it is told in the prompt")


def _why_not(
    form: ResponseFormat, settings: NodeCompletionParameters, generator: GeneratorInfo
) -> str | None:
    if settings.params.response_format is not None:
        return "the parameters have a response_format of their own"
    if settings.force_prepend:
        return "a forced beginning is not in the form"
    return generator.provider.schema_refusal(generator.model, form)
