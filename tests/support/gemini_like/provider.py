"""The service: its addresses and facts; it calls the functions of the wire."""

from urllib.parse import quote

from gemini_like import request, response
from minillmlib import AuthKind, Billing, Capabilities, Provider


def _why_no_prefill(model):
    return f"{model} begins a new answer after a turn of the model"


class GeminiLike(Provider):
    """Gemini's `generateContent`, for text."""

    capabilities = Capabilities(messages_key="contents", why_no_prefill=_why_no_prefill)
    billing = Billing(merge_usage=response.merge_usage, unpriced_keys=request.unpriced_keys)

    def request_url(self, base, model, *, stream):
        kind, _, name = model.rpartition("/")
        place = "tunedModels" if kind == "tunedModels" else "models"
        action = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{base.rstrip('/')}/{place}/{quote(name, safe='')}:{action}"

    def auth_headers(self, auth):
        if auth.kind is AuthKind.API_KEY:
            return [("x-goog-api-key", auth.secret().expose_secret())]
        return super().auth_headers(auth)

    def encode_message(self, message):
        return request.encode_message(message)

    def build_request(self, model, messages, params, *, stream, include_usage):
        return request.build_body(messages, params, self.encode_message)

    def parse_response(self, raw):
        return response.parse_answer(raw)

    def parse_chunk(self, data):
        return response.parse_event(data)

    def parse_usage(self, raw):
        return response.parse_usage(raw)

    def emits_stream_usage(self, requested):
        return False  # the counts are in the event with the finish reason
