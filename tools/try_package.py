"""Use an installed minillmlib as its users do: over a real socket, whole and streamed.

Run it with the Python of an environment in which the package is installed:
python -I tools/try_package.py. It needs the package and its two dependencies, and no network.
"""

import asyncio
import importlib.metadata
import importlib.resources
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from minillmlib import ChatNode, ConnectError, CostInfo, GeneratorInfo, TokenPrice, __version__, run

CHAT = b"""{"id": "1", "choices": [{"index": 0, "message": {"content": "It works."},
"finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}"""
EVENTS = b"""data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "It "}}]}

data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "works."},\
 "finish_reason": "stop"}]}

data: {"id": "1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}

data: [DONE]

"""
REPORTED = ("aiohttp", "msgspec")


class Handler(BaseHTTPRequestHandler):
    """Answers each request in the way that it asks for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer whole or streamed."""
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        is_stream = b'"stream":true' in asked
        body = EVENTS if is_stream else CHAT
        kind = "text/event-stream" if is_stream else "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


async def use(base_url: str) -> None:
    """Ask whole and streamed, and meet a server that is not there."""
    reports: list[CostInfo] = []
    generator = GeneratorInfo.custom("here", base_url, "m").with_token_price(TokenPrice(1, 5))
    root = ChatNode.root("Be brief.")
    answer = await root.chat("Does it work?", generator)
    stream = answer.chat_streaming("Again?", generator)
    text = "".join([piece async for piece in stream.text()])
    reports += [CostInfo.of(node.response.attempts) for node in (answer, stream.node)]
    if (answer.text, text) != ("It works.", "It works."):
        raise SystemExit(f"wrong answers: {answer.text!r}, {text!r}")
    if [str(report.cost) for report in reports] != ["0.000024"] * 2:
        raise SystemExit(f"wrong costs: {reports}")
    try:
        await root.chat("?", generator.with_base_url("http://127.0.0.1:1/v1"), retry=0)
    except ConnectError:
        return
    raise SystemExit("a server that is not there has answered")


def main() -> None:
    """Use the package, and print which versions were used."""
    distribution = importlib.metadata.distribution("minillmlib")
    if distribution.version != __version__:
        raise SystemExit(f"installed as {distribution.version}, but it is {__version__}")
    if not importlib.resources.files("minillmlib").joinpath("py.typed").is_file():
        raise SystemExit("py.typed is missing")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    asyncio.run(use(address))
    run(use(address))  # and from blocking code
    server.shutdown()
    server.server_close()
    versions = (f"{name} {importlib.metadata.version(name)}" for name in REPORTED)
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"minillmlib {__version__} works: Python {python}, {', '.join(versions)}")  # noqa: T201


if __name__ == "__main__":
    main()
