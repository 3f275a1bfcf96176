"""A chat over HTTP: it streams the answers, and counts what each user has cost.

python examples/chat_server.py
curl -N http://127.0.0.1:8000/chat -H "X-User: ann" --json '{"text": "Name a river."}'
curl http://127.0.0.1:8000/costs

Needs `pip install fastapi uvicorn`. A real program takes the user from its login, not a header.
"""

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from minillmlib import (
    ChatNode,
    CompletionContext,
    CompletionMeta,
    CostInfo,
    CostTotal,
    GeneratorInfo,
    MiniLLMError,
    TrackedStream,
)


class Question(BaseModel):
    """The body of a request."""

    text: str


class User:
    """One user's conversation, and what it has cost."""

    def __init__(self, name: str, generator: GeneratorInfo) -> None:
        self.node = ChatNode.root("You are a helpful assistant.")
        self.cost = CostTotal()
        # Every completion through a context is reported, also one that fails or is abandoned.
        self.context = CompletionContext(generator, name, self.book)

    def book(self, info: CostInfo, _: CompletionMeta) -> None:
        """Add the cost of one completion. A real program would write it to its database."""
        self.cost += CostTotal.of([info])

    async def answer(self, stream: TrackedStream[ChatNode]) -> AsyncIterator[str]:
        """Yield the events of one answer; its end, or its error, is an event of its own."""
        try:
            async for piece in stream.text():
                yield event("text", piece)
        except MiniLLMError as error:
            yield event("error", str(error))
        else:
            self.node = stream.node  # the next question continues from here
            yield event("end", str(stream.response.finish_reason))


class AnswerResponse(StreamingResponse):
    """A response that closes the model's stream when it ends, however it ends.

    When the client leaves, its body is suspended and would be closed at some later time. The model
    would go on writing, and costing, until then.
    """

    def __init__(self, user: User, text: str) -> None:
        self.stream = user.node.chat_streaming_tracked(text, user.context)
        super().__init__(user.answer(self.stream), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. The request goes out once the client is watched."""
        async with aclosing(self.stream):
            await super().__call__(scope, receive, send)


def event(name: str, data: str) -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def create_app(generator: GeneratorInfo) -> FastAPI:
    """Return the program, with its users in memory."""
    users: dict[str, User] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for user in users.values():
            await user.context.aclose()  # costs that are still looked up

    app = FastAPI(lifespan=lifespan)

    @app.post("/chat")
    async def chat(question: Question, x_user: Annotated[str, Header()]) -> AnswerResponse:
        user = users.setdefault(x_user, User(x_user, generator))
        return AnswerResponse(user, question.text)

    @app.get("/costs")
    async def costs() -> dict[str, str]:
        return {name: str(user.cost) for name, user in users.items()}

    return app


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="A chat server with costs per user.")
    parser.add_argument("--model", default="local", help="such as openai:gpt-4o-mini")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    uvicorn.run(create_app(GeneratorInfo.from_spec(args.model)), port=args.port)


if __name__ == "__main__":
    main()
