"""Several answers in one request, by the key `n`."""

from minillmlib.json_value import JsonObject, JsonValue


def ask_choices(body: JsonObject, count: int) -> JsonObject:
    """Return a body that asks for so many answers."""
    return {**body, "n": count}


def split_choices(raw: JsonValue) -> list[JsonValue]:
    """Return a body with several answers as bodies with one answer each, in order of their index.

    The counts in each are those of the whole request. Those without a message are no answers.
    """
    choices = raw.get("choices") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(choices, list):
        return []
    answers = [
        each for each in choices if isinstance(each, dict) and each.get("message") is not None
    ]
    return [{**raw, "choices": [choice]} for choice in sorted(answers, key=_place)]


def _place(choice: JsonObject) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0
