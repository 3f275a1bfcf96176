"""What the commands print, write and send, in many uses: transcripts in `golden/cli`.

The commands run in this process, between pipes, and a script answers them. After a change that is
meant, `python tests/support/cli_transcripts.py` writes the transcripts again, and their difference
is to be read.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints
from unittest import mock

from typer.main import get_command

from minillmlib import ChatNode, CompletionResponse, FinishReason, ToolCall, __version__
from minillmlib.cli.app import app
from minillmlib.cli.tree_view import render_tree, summary
from minillmlib.providers.presets import PRESETS
from minillmlib.testing import (
    ScriptedReply,
    ScriptedTransport,
    SentRequest,
    use_transport,
    without_retries,
)

FOLDER = Path(__file__).parents[1] / "golden" / "cli"
REPLIES = {
    "refuse": ScriptedReply.refusal("I won't."),
    "cut": ScriptedReply.text("It is", finish_reason=FinishReason.LENGTH),
    "filter": ScriptedReply.text("It", finish_reason=FinishReason.CONTENT_FILTER),
    "empty": ScriptedReply.text(""),
    "line": ScriptedReply.text("It is Paris.\n"),
    "hostile": ScriptedReply.text("a\x1b[2Jb\tc"),
    "uncounted": ScriptedReply.text("It is Paris.", usage=None),
    "break": ScriptedReply.stream(["It ", "is"], cut=True),
    "call": ScriptedReply.tool_call("look", at="it"),
    "json": ScriptedReply.text('{"city": "Paris", "size": 2}'),
    "words": ScriptedReply.text("no JSON"),
    "fail": ScriptedReply.error(400, "wrong\nquestion"),
    "key": ScriptedReply.error(401, "wrong key"),
    "money": ScriptedReply.error(402, "no money"),
    "busy": ScriptedReply.error(503, "busy"),
    "broken": ScriptedReply.error(500, "broken"),
}
COMMAND = get_command(app)  # made once, since that takes most of the time of a use
ERROR_CLASS = re.compile(r"\d+ \w+Error, first on")


def answer(request: SentRequest) -> ScriptedReply:
    """The answer that the model's name asks for, or else the last word of the question."""
    words = request.text.rsplit(None, 1)
    name = request.model if request.model in REPLIES else (words or [""])[-1]
    return REPLIES.get(name, ScriptedReply.text("It is Paris."))


class Use(NamedTuple):
    """Commands after one another, in a folder with these files; `given` is piped into each."""

    name: str
    commands: Sequence[str | Sequence[str]]
    given: bytes = b""
    files: Mapping[str, str | bytes] = {}
    shows: Sequence[str] = ()  # the files that are shown at the end
    variables: Mapping[str, str] = {}
    is_screen: bool = False  # whether the outputs are terminals
    failure: type[BaseException] | OSError | None = None  # of the first writing of output
    fails_beside: bool = False  # whether it is that of the first writing beside the output


class Stream(io.TextIOWrapper):
    """An output in memory, which may be a terminal."""

    is_screen = False
    failure: type[BaseException] | OSError | None = None

    def isatty(self) -> bool:
        return self.is_screen

    def write(self, text: str) -> int:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().write(text)


class Names:
    """Replaces the ids of nodes, which are never the same, by the order in which they appear."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def replace(self, text: str) -> str:
        def name(found: re.Match[str]) -> str:
            return self.known.setdefault(found[1][:6], f"node-{len(self.known) + 1}")

        text = re.sub(r"(?m)(?<=\d )([0-9a-f]{6})(?= )", name, text)
        text = re.sub(r"\b\d+(\.\d+)? s\b", "N s", text)
        text = re.sub(r'"[0-9a-f]{32}"', '"ID"', text)
        text = re.sub(r"\(Object missing [^)]*\)|\(Expected [^)]*\)", "(...)", text)
        return text.replace(f"minillmlib/{__version__}", "minillmlib/VERSION")


def transcript(use: Use) -> str:
    """Return all that the commands of a use print, send and write."""
    lines, names = [f"#### {use.name}"], Names()
    variables = {
        "TERM": "xterm",
        "OPENAI_API_KEY": "k",
        "COLUMNS": "80",
        "MINILLMLIB_MODEL": "openai:x",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        chdir(folder),
        mock.patch.dict(os.environ, variables | dict(use.variables), clear=True),
        without_retries(),
    ):
        for name, content in use.files.items():
            data = content.encode() if isinstance(content, str) else content
            Path(name).write_bytes(data)
        for command in use.commands:
            words = command.split() if isinstance(command, str) else command
            lines += run_once(words, use, names)
        for name in use.shows:
            path = Path(name)
            text = path.read_bytes().decode() if path.is_file() else "(none)\n"
            lines += [f"[{name}]", names.replace(text).rstrip("\n")]
        lines.append(f"files: {' '.join(sorted(path.name for path in Path().iterdir()))}")
    return "\n".join(lines).replace("\x1b", "<ESC>") + "\n"


def run_once(words: Sequence[str], use: Use, names: Names) -> list[str]:
    transport, code = ScriptedTransport(answer), None
    output, errors = (Stream(io.BytesIO(), encoding="utf-8") for _ in range(2))
    output.is_screen = errors.is_screen = use.is_screen
    handler = signal.getsignal(signal.SIGINT)
    (errors if use.fails_beside else output).failure = use.failure
    with (
        tempfile.TemporaryFile() as file,
        io.TextIOWrapper(file, encoding="utf-8") as given_stream,
        use_transport(transport),
        mock.patch.multiple(sys, stdin=given_stream, stdout=output, stderr=errors),
    ):
        file.write(use.given)
        file.seek(0)
        try:
            COMMAND.main(list(words), prog_name="minillmlib")
        except SystemExit as ending:
            code = ending.code
        finally:
            signal.signal(signal.SIGINT, handler)
        output.flush()
        errors.flush()
    lines = [f"$ minillmlib {' '.join(map(repr_of, words))}"]
    lines += (
        sorted(map(sent, transport.requests))
        if words[:1] == ["run"]
        else map(sent, transport.requests)
    )
    for mark, data in (("|", output.buffer.getvalue()), ("!", errors.buffer.getvalue())):
        shown, _, rest = names.replace(data.decode()).rpartition("\n")
        printed = shown.split("\n") if shown else []
        printed += [f"{rest} (without a line end)"] if rest else []
        lines += [f"{mark} {line}" for line in in_order(printed)]
    lines.append(f"= {code}")
    return lines


def sent(request: SentRequest) -> str:
    """A request on one line: where it goes, with which key, and what it asks."""
    body = {key: value for key, value in request.json().items() if key != "stream_options"}
    key = dict(request.expose_headers()).get("Authorization", "no key")
    return f"> {request.url} ({key}) {json.dumps(body, ensure_ascii=False)}"


def in_order(lines: list[str]) -> list[str]:
    """Return the lines with those about classes of errors sorted: which is first depends on time."""
    classes = sorted(filter(ERROR_CLASS.match, lines), reverse=True)
    return [classes.pop() if ERROR_CLASS.match(line) else line for line in lines]


def repr_of(word: str) -> str:
    return word if re.fullmatch(r"[\w.,:/{}<>?!-]+", word) else repr(word)


def tree_of_all() -> str:
    """A tree of all roles, with branches, notes and a cost."""
    root = ChatNode.root("Be brief.")
    first = root.add_user("What is HTTP?")
    first.add_assistant("A protocol.\nIt has methods.").add_user("Which?")
    call = ToolCall(id="c1", name="look", arguments='{"at": "it"}')
    calls = CompletionResponse(content="", model="m", tool_calls=(call,))
    looked = first.add_response(calls).add_tool_result("c1", "a pixel")
    looked.add_assistant("A pixel.").note("score", 0.5).add_user("x" * 100)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree")
        root.save_tree(path)
        return path.read_text()


THREAD = '[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]'
TREE = tree_of_all()

ASKING = [
    Use("a question", ["ask Where?"]),
    Use("a question that is piped in", ["ask"], b"Where\nis it?\r\n\n"),
    Use("both", ["ask Sum:"], b"one\n"),
    Use("no question", ["ask"], b" \n"),
    Use("a blank question", [["ask", " "]], b"\n"),
    Use("options", ["ask Where? -s Brief --max-tokens 7 --temperature 0 --timeout 9 -m openai:y",
                    ["ask", "Where?", "--system", ""]]),
    Use("marks of an encoding", ["ask"], b"\xef\xbb\xbfWh\xc3\xa9re?"),
    Use("UTF-16", ["ask"], "\ufeffWhé?".encode("utf-16-le")),
    Use("UTF-16 the other way", ["ask"], "\ufeffWhé?".encode("utf-16-be")),
    *(Use(f"an answer: {name}", [f"ask {name}"]) for name in REPLIES),
    Use("a cut piped answer", ["ask"], b"break"),
    Use("fallbacks", ["ask Where? -m openai:busy,openai:broken,openai:x",
                      "ask Where? -m openai:busy,openai:broken",
                      "ask Where? -m openai:fail,openai:x"]),
    Use("a wrong timeout", ["ask u --timeout 0", "ask u --timeout -1", "ask u --timeout nan"]),
    Use("a wrong price", [f"ask u --price {price}"
                          for price in ("1", "1,2,3", "a,b", "-1,2", ",", "x" * 90)]),
    Use("a price", ["ask Where? --price 1,2", ["ask", "Where?", "--price", " 1 , 2 "]]),
    Use("servers", [
        "ask u --base-url http://localhost:1/v1 -m m",
        "ask u --base-url https://x.example/v1 -m openai:m",
        "ask u --base-url http://localhost:1/v1 -m local",
        "ask u --base-url http://localhost:1/v1 -m local:m",
        "ask u --base-url http://localhost:1/v1 -m custom:http://localhost:2:m",
        "ask u --base-url http://localhost:1/v1 -m completions:http://localhost:2:m",
        "ask u --base-url http://localhost:1/v1 -m custom",
        "ask u --base-url http://localhost:1/v1 -m openai",
        "ask u --base-url http://localhost:1/v1 -m other:m",
        "ask u -m custom:http://localhost:2/v1:m",
        "ask u -m completions:http://localhost:2/v1:m",
    ]),
    Use("a server without a model", ["ask u --base-url http://localhost:1/v1"],
        variables={"MINILLMLIB_MODEL": ""}),
    Use("no model of a provider", ["ask u -m openai:"]),
    Use("options of one model", [
        "ask u -m openai:x,openai:y --base-url http://localhost:1/v1",
        "ask u -m openai:x,openai:y --key-env OTHER",
        "ask u -m openai:x,openai:y --price 1,2",
    ]),
    Use("keys", ["ask u --key-env OTHER", "ask u --key-env NONE", "ask u --key-env BLANK",
                 ["ask", "u", "--key-env", "sk-1234"], "ask u -m groq:m"],
        variables={"OTHER": "other-key-123", "BLANK": " "}),
]  # fmt: skip
CHATS = [
    Use("messages and the first one", [["chat", "first", "-s", "Brief."]], b"second\n\n \nthird"),
    Use("no message", ["chat", ["chat", " "]], b""),
    Use("a message with a slash", ["chat"], b"//etc\n/ etc\n/etc\n"),
    Use("commands without a conversation", ["chat"],
        b"/branch\n/retry\n/cost\n/tree\n/goto\n/goto 1\n/save\n/help\n"),
    Use("help takes words", ["chat"], b"/help me\n/tree all\n/cost  x \n/retry again\n"),
    Use("going back", ["chat --price 1,2"],
        b"one\ntwo\nthree\n/branch\n/branch 2\n/branch 1\n/tree\n/goto 7\n/branch 4\n/branch 3\n"
        b"/goto 7\n/branch 0\n/branch -1\n/branch x\n/branch 1 2\n/branch 99999999999\n/cost\n"),
    Use("going back twice", ["chat"], b"one\ntwo\n/branch\n/branch\n/branch\nnew\n/tree\n"),
    Use("places", ["chat"],
        b"one\n/goto 00000\n/goto 2\n/goto 3\n/goto 99999\n/goto zz\n/goto 1 2\n/goto\nmore\n/tree\n"),
    Use("again", ["chat --price 1,2"], b"one\n/retry\n/retry\n/tree\n/cost\n/goto 1\n/retry\n"),
    Use("again after a failure", ["chat"], b"one\nfail\n/retry\n/tree\n/goto 1\n/retry\nbreak\n"),
    Use("a long message", ["chat"], b"x" * 60 + b"\n/branch\n/goto 2\n/" + b"y" * 60 + b"\n"),
    Use("saving", ["chat"],
        b"one\n/save a.json\n/save a.json\n/save b.md\n/save B.HTML\n/save c.sharegpt.jsonl\n"
        b"/save tree\n/save old\n/save! old\n/save old\n/save folder/x\n/save two words.json\n",
        {"old": "mine"}, ["a.json", "b.md", "c.sharegpt.jsonl", "two words.json"]),
    Use("a journal", ["chat --save j", "chat --save j -s other"], b"one\n/save j\n/save\n/cost\n"),
    Use("a journal of others", ["chat --save j"], b"one\n", {"j": "mine\n"}, ["j"]),
    Use("a journal that goes on", ["chat --save j", ["chat", "-s", "Be brief.", "--save", "j"]],
        b"one\n/branch\n", {"j": TREE}),
    Use("a conversation that is a thread", ["chat --save t.json"], b"one\n", {"t.json": THREAD}),
    Use("drawing", ["tree t", "tree thread.json", "tree none", "tree text", "tree ."], b"",
        {"t": TREE, "thread.json": THREAD, "text": "mine"}),
    Use("pages", ["view t", "view t", "view t -o page.html", "view t -o t", "view t -o text",
                  "view t -o text --force", "view a.html", "view none", "view t -o no/page.html"],
        b"", {"t": TREE, "text": "mine", "a.html": THREAD}),
]  # fmt: skip
BROKEN = [
    b"{'a': 1}", b'{"a": 1}', b"", b" \n", b"words", b"[1, 2", b'{"a": 1} and {"b": 2}',
    b"```json\n{'a': 1,}\n```\n", b'{"a": 1}\n{\'b\': 2}\n\n[3]\nwords\n4\n', b"{'a': 1}{'b': 2}",
    b'{"a": 1}\n{"b": \n{"c": 3}\n', b'{"a": 1}\n{"b": 2} x\n', b"{'a':\n 1}\n", b"1\n2\n3\n",
    b"1\n{'a': 2}\n", b"# one\n{'a': 1}\n{'b': 2}\n", b'\xef\xbb\xbf{"a": 1}\n{"b": 2}\n',
    "\ufeff{'é': 1}\n{'b': 2}\n".encode("utf-16-le"), b"NaN", b"{'a': NaN}", b"[" * 300,
    b"{'a': 1}\r\n{'b': 2}\r\n", b"{'a': 'b\n", b"[1] [2] words [3]", b"true false",
    b"{'a': 1\n{'b': 2}\n{'c': 3}\n", b'{"a": 1}\n[2]\n{"b": \nwords\n{"c": 3}\n{"d":\n', b"{'a': True, 'b': None, c: 'd' /* e */, f: +.5}",
]  # fmt: skip
REPAIRS = [
    Use(f"repairing {given[:40]!r}", ["repair", "repair --changes", "repair --strict"], given)
    for given in BROKEN
]
REPAIRS += [
    Use("repairing a file", ["repair f", "repair --changes f"], b"", {"f": "{'a': 1}\n{'b': 2"}),
]
JSONL = '{"a": 1, "b": "x"}\n\n{"b": "fail", "a": [1, "é"]}\n{"a": null}\n{"a": "z", "b": "busy"}\n'
CSV = 'a,b\n1,x\n"two\nlines","a ""quoted"", cell"\n\n3\n4,fail\n'
ODD = (
    '"a string"\n[1]\nnull\n5\n{"a": 1, "a": 2}\n{"a": 1e999}\n{"a": NaN}\n{"a": {"b": 1}}\n{"a": 1.50}\n{"a": -1e2}\n{"a": true}\n{"a": ""}\n'
    '{"a": "x", "c": 1}\nwords\n{"text": "t", "answer": "mine", "input_answer": 2, "a": "y"}\n'
)  # fmt: skip
SCHEMA = json.dumps({
    "type": "object", "properties": {"city": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["city", "size"], "additionalProperties": False,
})  # fmt: skip
RUNS = [
    Use("JSON lines", ["run r.jsonl -p {b}?{a} -m openai:x"], b"", {"r.jsonl": JSONL}),
    Use("JSON lines into a file", [
        "run r.jsonl -p {b} -o out.jsonl --price 1,2", "run r.jsonl -p {b} -o out.jsonl",
        "run r.jsonl -p {b} -o out.jsonl --retry-failed", "run r.jsonl -p {b} -o out.jsonl --dry-run",
    ], b"", {"r.jsonl": JSONL}, ["out.jsonl"]),
    Use("odd lines", ["run r.jsonl -p {a}", "run r.jsonl -p {a} -o out.csv"], b"",
        {"r.jsonl": ODD}, ["out.csv"]),
    Use("a string is a text", ["run r.ndjson"], b"", {"r.ndjson": '"one"\n{"text": "two"}\n'}),
    Use("CSV", ["run r.csv -p {b}", "run r.csv -p {b} -o out.csv", "run r.csv -p {b} -o out.jsonl"],
        b"", {"r.csv": CSV}, ["out.csv", "out.jsonl"]),
    Use("CSV with a broken first row", ["run r.csv -p {a}", "run s.csv -p {b}"], b"",
        {"r.csv": "a,b\n1\n\n2,x,3\n4,y\n", "s.csv": '"a\n\nc",b\n1\n2,x\n'}),
    Use("CSV that is none", ["run r.csv -p {a}", "run s.csv -p {a}", "run t.csv -p {a}",
                             "run u.csv -p {a}"], b"",
        {"r.csv": 'a\n"b', "s.csv": "a,b,a\n1,2,3\n", "t.csv": b"\xffa\n1\n", "u.csv": ""}),
    Use("plain lines", ["run r.txt", "run r.txt -o out.csv", "run r.txt -p Say:{text} -s Brief."],
        b"", {"r.txt": b"one\r\n\n two \nfail\nb\xffd\n"}, ["out.csv"]),
    Use("lines of a name that does not tell", [
        "run r", "run r --format lines", "run r.JSONL --format lines", "run r.TXT"], b"",
        {"r": "one\n", "r.JSONL": "two\n", "r.TXT": "three\n"}),
    Use("standard input", ["run - --format lines", "run -", "run - --format csv -p {a} -o o.csv",
                           "run - --format jsonl --journal j"], b"a\n1\n", {}, ["o.csv"]),
    Use("UTF-16", ["run r.txt", "run r.csv -p {a}"], b"",
        {"r.txt": "\ufeffoné\ntwo\n".encode("utf-16-le"),
         "r.csv": "\ufeffa,é\r\né,2\r\n".encode("utf-16-be")}),
    Use("a mark of UTF-8", ["run r.csv -p {a}"], b"", {"r.csv": b"\xef\xbb\xbfa\n1\n"}),
    Use("prompts in files", ["run r.txt --prompt-file p", "run r.txt --prompt-file p -p x",
                             "run r.txt --prompt-file none", "run r.txt --prompt-file blank",
                             ["run", "r.txt", "-p", " "], "run r.txt -p {missing}",
                             "run r.txt -p {text}{"], b"",
        {"r.txt": "one\n", "p": "\ufeffSay {text}!\r\n\n", "blank": "\n"}),
    Use("conversations", ["run r.jsonl", "run r.jsonl -p {a}", "run r.jsonl -s Brief."], b"",
        {"r.jsonl": '{"messages": [{"role": "user", "content": "u"}], "a": 1}\n'
                    '{"messages": [{"role": "wizard"}], "a": 2}\n{"a": 3}\n'}),
    Use("a schema", ["run r.txt --schema s.json", "run r.txt --schema s.json -o out.csv",
                     "run r.txt --schema list.json", "run r.txt --schema broken.json",
                     "run r.txt --schema none.json", "run r.txt --schema any.json -o any.jsonl"],
        b"", {"r.txt": "json\nwords\nfail\n", "s.json": SCHEMA, "list.json": "[]",
              "broken.json": "{", "any.json": '{"type": "object"}'}, ["out.csv", "any.jsonl"]),
    Use("names of ours", ["run r.jsonl -p {a}", "run r.csv -p {a}"], b"",
        {"r.jsonl": '{"a": 1, "answer": 2, "input_answer": 3, "error": 4, "cost": 5}\n',
         "r.csv": "a,answer,notice\n1,2,3\n"}),
    Use("answers that are unusual", ["run r.txt"], b"",
        {"r.txt": "refuse\ncut\nfilter\nempty\nuncounted\nbreak\nhostile\ncall\n"}),
    Use("failures of all kinds", ["run r.txt --journal j", "run r.txt --journal j --retry-failed"],
        b"", {"r.txt": "fail\nbusy\nbroken\nfail\none\n"}),
    Use("a refused key", ["run r.txt --width 1 --journal j"], b"", {"r.txt": "one\nkey\n"}),
    Use("budgets", ["run r.txt --budget 1 --price 1,2", "run r.txt --budget 1 --max-tokens 5",
                    "run r.txt --budget 1", "run r.txt --budget 1 --price 1,2 --max-tokens 5",
                    "run r.txt --budget 0.00001 --price 1,2 --max-tokens 5 --width 1 -o o.jsonl",
                    "run r.txt --budget x", "run r.txt --budget 0", "run r.txt --budget -1",
                    f"run r.txt --budget {'x' * 80}"], b"", {"r.txt": "one\ntwo\n"}),
    Use("what is overwritten", [
        "run r.jsonl -o r.jsonl", "run r.jsonl -p u --journal r.jsonl", "run r.jsonl -o j --journal j",
        "run r.jsonl -o old", "run r.jsonl -o .", "run r.jsonl --journal j --no-journal",
        "run none.txt", "run . --format lines", "run r.jsonl -o old --force", "run r.jsonl -o old",
        "run r.jsonl -o new --no-journal", "run r.jsonl -o new --no-journal",
        "run r.jsonl --journal old2",
    ], b"", {"r.jsonl": '"one"\n', "old": "mine", "old2": "mine"}, ["old"]),
    Use("dry runs", [
        "run r.txt --dry-run --no-journal", "run r.txt --dry-run --price 1,2 --max-tokens 5",
        "run t.txt --dry-run --price 1,2", "run t.txt --dry-run --price 0,0 --max-tokens 5", "run t.txt --dry-run --max-tokens 5 -m groq:m",
        "run t.txt --dry-run --price 1,2 --max-tokens 5 --budget 1 -s Brief.",
        "run t.txt -p {a} --dry-run", "run s.jsonl -p {a} --dry-run", "run empty.txt --dry-run",
        "run empty.txt",
    ], b"", {"r.txt": "one\ntwo\nthree\nfour\n", "t.txt": "one\n", "empty.txt": "\n",
             "s.jsonl": '{"a": 1}\n{"b": 1}\nwords\n{"b": 1}\n{"b": 1}\n'}),
    Use("a pace", ["run r.txt --rpm 6000 --width 2 -o o.csv"], b"", {"r.txt": "one\n"}, ["o.csv"]),
    Use("batches", ["run r.txt --batch -m custom:http://localhost:1/v1:m --no-journal",
                    "run r.txt --batch --no-journal"], b"", {"r.txt": "one\n"}),
    Use("a report", ["run r.txt -o o.jsonl", "report o.jsonl.journal", "report o.jsonl",
                     "report o.jsonl.journal -o r.txt", "report o.jsonl.journal -o page.html"],
        b"", {"r.txt": "one\nfail\n"}),
]  # fmt: skip
SCREENS = [
    use._replace(name=f"{use.name}, on a screen", is_screen=True)
    for use in [
        Use("answers", ["ask Where? --price 1,2", "ask line", "ask hostile", "ask cut", "ask empty",
                        "ask refuse", "ask uncounted", "ask Where? -m openai:busy,openai:x"]),
        Use("failures", ["ask", "ask fail", "ask break", "ask key"], b" "),
        Use("a chat", ["chat first --price 1,2", "chat --save j", "chat --save j"],
            b"one\n/tree\n/cost\n/branch\n/zzz\n[bold]:smile:\n/goto 2\n"),
        Use("a chat that goes on", ["chat --save j"], b"", {"j": TREE}),
        Use("a tree", ["tree t", "tree thread.json"], b"", {"t": TREE, "thread.json": THREAD},
            variables={"COLUMNS": "30"}),
        Use("a page", ["view t", ["view", "t", "-o", "a\x1bb.html"]], b"", {"t": TREE}),
        Use("rows", ["run r.txt", "run r.txt --dry-run", "run r.csv -p {a}"], b"",
            {"r.txt": "hostile\na\x1b[2J\n", "r.csv": "a,b\n\x1b,hostile\n"}),
        Use("changes", ["repair --changes"], b"{'a': 1"),
    ]
]  # fmt: skip
FULL = OSError(28, "No space left on device")
ENDINGS = [
    Use("a reader that leaves", ["ask Where?", "repair", "view t", "tree t"], b"{'a': 1}",
        {"t": TREE}, failure=BrokenPipeError),
    Use("a full disk", ["ask Where?", "repair"], b"{'a': 1}", failure=FULL),
    Use("an error without words", ["ask Where?"], failure=OSError("odd")),
    Use("an interrupt", ["ask Where?", "view t"], b"", {"t": TREE}, failure=KeyboardInterrupt),
    Use("an interrupt on a screen", ["ask Where?"], is_screen=True, failure=KeyboardInterrupt),
    Use("an interrupted answer of a chat", ["chat"], b"one\ntwo\n/tree\n/branch\n",
        failure=KeyboardInterrupt),
    Use("an interrupted answer that is asked again", ["chat"], b"one\n/retry\n/tree\n",
        is_screen=True, failure=KeyboardInterrupt),
    Use("an interrupted command of a chat", ["chat"], b"/tree\n/cost\n", is_screen=True,
        failure=KeyboardInterrupt, fails_beside=True),
]  # fmt: skip
ROOMS = {
    "endings": ENDINGS,
    "screen": SCREENS,
    "ask": ASKING,
    "chat": CHATS,
    "repair": REPAIRS,
    "run": RUNS,
}


def options() -> str:
    """What each command takes, and what its help says of it."""
    facts = ("default", "param_decls", "metavar", "envvar", "min", "exists", "dir_okay")
    lines = []
    for registered in app.registered_commands:
        function = registered.callback
        lines += [f"#### {function.__name__}: {inspect.getdoc(function)}"]
        hints = get_type_hints(function, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            kind, option = get_args(hints[name])
            told = {fact: getattr(option, fact) for fact in facts}
            known = {fact: value for fact, value in told.items() if value not in (None, (), ...)}
            kinds = " or ".join(
                getattr(one, "__name__", str(one)) for one in get_args(kind) or [kind]
            )
            lines.append(f"{name}: {kinds}, by default {parameter.default}: {known}")
            lines.append(f"  {option.help}")
    text = "\n".join(lines).replace(", ".join(PRESETS), "PROVIDERS")
    return text.replace(str(inspect.Parameter.empty), "required") + "\n"


def drawings() -> str:
    """The tree of all at many widths, with its styles."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree")
        path.write_text(TREE)
        root = ChatNode.load_tree(path)
    deep = root.in_insertion_order()[-1]
    for number in range(12):
        deep.add_user(f"aside {number}")
        deep = deep.add_assistant(f"说{number}" * 9)
    nodes = root.in_insertion_order()
    lines = []
    for width, here, is_ascii in [
        (8, None, False), (16, nodes[2], False), (30, root, True), (44, None, False),
        (59, nodes[-1], False), (60, None, True), (61, nodes[5], False), (120, None, False),
    ]:  # fmt: skip
        lines.append(f"#### {width} columns{', ascii' * is_ascii}")
        for node, line in zip(
            order_of(root), render_tree(root, width, here, is_ascii), strict=True
        ):
            styles = " ".join(f"{span.style}:{span.start}-{span.end}" for span in line.spans)
            lines.append(f"{line.plain.replace(node.id[:6], 'abcdef')} | {styles}")
    lines.append(summary(root))
    for width in range(14, 62):
        drawn = (line.plain for line in render_tree(root, width, None, is_ascii=False))
        lines += [f"{width}: {line.partition('assistant')[2]}" for line in drawn if "· " in line]
    return "\n".join(lines) + "\n"


def order_of(root: ChatNode) -> list[ChatNode]:
    """The nodes as they are drawn: each before its children, and those in their order."""
    order, pending = [], [root]
    while pending:
        order.append(pending.pop())
        pending += order[-1].children()[::-1]
    return order


if __name__ == "__main__":
    (FOLDER / "drawings.txt").write_text(drawings())
    (FOLDER / "options.txt").write_text(options())
    for room, uses in ROOMS.items():
        (FOLDER / f"{room}.txt").write_text("\n".join(map(transcript, uses)))
