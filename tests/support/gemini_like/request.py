"""Builds the body of a request. What the wire cannot carry is an error."""

from minillmlib import InvalidParameterError, Role, TextPart

ROLES = {Role.USER: "user", Role.ASSISTANT: "model"}
FIELDS = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "stop": "stopSequences",
    "seed": "seed",
}
UNPRICED = ("cachedContent", "serviceTier", "tools")


def build_body(messages, params, encode_message):
    """Return the body: the system text apart, and one item of `contents` for each other turn."""
    params.check_only(*FIELDS, "response_format", "extra", wire="Gemini")
    system = [message for message in messages if message.role is Role.SYSTEM]
    turns = [message for message in messages if message.role is not Role.SYSTEM]
    contents = [content for content in map(encode_message, turns) if content["parts"]]
    if not turns or not _parts(turns[-1]):
        raise InvalidParameterError("Gemini needs a user's message with visible text at the end")
    body = {"contents": contents}
    instruction = [part for message in system for part in _parts(message)]
    if instruction:
        body["systemInstruction"] = {"parts": instruction}
    config = _config(params)
    if config:
        body["generationConfig"] = config
    for key, value in params.extra.items():
        if key in body:
            raise InvalidParameterError(f"extra[{key!r}] collides with a key of the call itself")
        body[key] = value
    return body


def encode_message(message):
    """Return one turn. It has no parts if there is no text: empty ones would be refused."""
    if message.role not in ROLES or message.tool_calls or message.media:
        raise InvalidParameterError("this provider takes text of users and models only")
    return {"role": ROLES[message.role], "parts": _parts(message)}


def unpriced_keys(body):
    return sorted(body.keys() & set(UNPRICED))


def _parts(message):
    content = message.content
    parts = (TextPart(text=content),) if isinstance(content, str) else content
    if not all(isinstance(part, TextPart) for part in parts):
        raise InvalidParameterError("this provider takes text of users and models only")
    return [{"text": part.text} for part in parts if part.text]


def _config(params):
    values = {key: getattr(params, field) for field, key in FIELDS.items()}
    config = {key: value for key, value in values.items() if value is not None}
    if params.response_format is not None:
        config["responseMimeType"] = "application/json"
        if params.response_format.schema is not None:
            config["responseJsonSchema"] = params.response_format.schema
    return config
