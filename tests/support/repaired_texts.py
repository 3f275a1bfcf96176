"""The golden file of small broken texts: what the repair makes of each of them.

Use it for whatever a change of the repair could change. `python tests/support/repaired_texts.py`
reads all texts of the file again and writes what comes out now, so that a reviewer sees what is
different. A line `{"text": "..."}` adds a text, and with `"live": []` one that is also read
character by character.
"""

from __future__ import annotations

import json
from pathlib import Path

from minillmlib import JsonRepairError, json_repair

PATH = Path(__file__).parents[1] / "json_repair" / "repaired_texts.jsonl"
LONG = 120  # characters of a text that is not looked at after each of them


def lines() -> list[str]:
    """Return the lines of the file."""
    return PATH.read_text(encoding="utf-8").splitlines()


def renewed(line: str, room=json_repair) -> str:
    """Return a line with what comes out of its text now."""
    old = json.loads(line)
    text = old["text"]
    said = {"text": text, **_at_once(text, room)}
    if "live" in old:
        said |= {
            "live": _live(text, room, said.get("scanned", said["repair"])),
            "strict": _fields(text, room, is_strict=True),
            "lenient": _fields(text, room, is_strict=False),
        }
    return json.dumps(said, separators=(",", ":"))


def _at_once(text: str, room) -> dict:
    """What `repair` says, and where the other functions do not say the same."""
    whole = _result(lambda: room.repair(text))
    said = {"repair": whole}
    is_found = isinstance(whole, list)
    if (scanned := _result(lambda: room.PartialJson().finish(text))) != whole:
        said["scanned"] = scanned
    loaded = _outcome(lambda: room.loads(text))
    if json.dumps(loaded) != json.dumps(whole[0] if is_found else whole):
        said["loads"] = loaded
    written = json.dumps(whole[0], ensure_ascii=False) if is_found else whole
    if (rewritten := _outcome(lambda: room.repair_json(text))) not in (text, written):
        said["repair_json"] = rewritten
    return said


def _outcome(work):
    try:
        return work()
    except JsonRepairError as error:
        return f"Error: {error}"


def _result(finish):
    """A result as a list: its value and changes, and what else is not as usual."""
    found = _outcome(finish)
    if isinstance(found, str):
        return found
    changes = [[change.position, change.kind.name] for change in found.changes]
    rest = {}
    if not found.complete:
        rest["complete"] = found.complete
    if found.candidates != (found.value,):
        rest["candidates"] = found.candidates
    if found.alternatives:
        rest["alternatives"] = found.alternatives
    return [found.value, changes, rest] if rest else [found.value, changes]


def _live(text: str, room, scanned) -> list:
    """The values that are seen while the text comes, each after how many characters."""
    partial, live, shown, last = room.PartialJson(), room.IncrementalJson(), [], "null"
    every = 1 if len(text) < LONG else 50
    try:
        for count, char in enumerate(text, 1):
            live.feed(char)
            partial.feed(char)
            if count % every:
                continue
            seen = live.snapshot()
            if (now := json.dumps(seen)) != last:
                last = now
                shown.append([count, seen])
            if partial.value != seen and text.lstrip()[:1] != '"':
                shown.append([count, seen, partial.value])
    except JsonRepairError as error:
        return [*shown, f"Error: {error}"]
    ends = _result(live.finish), _result(partial.finish)
    return [*shown, *(end for end in ends if end != scanned)]


def _fields(text: str, room, *, is_strict: bool) -> list:
    """The members that are known while the text comes: each new key, and all at the end."""
    stream, shown, last = room.IncrementalObject(is_strict=is_strict), [], None
    try:
        for count, char in enumerate(text, 1):
            stream.feed(char)
            now = [stream.pending_key, *stream.fields]
            if now not in (last, [None]):
                last = now
                shown.append([count, *now])
        return [*shown, stream.finish_fields(), stream.pending_key]
    except JsonRepairError as error:
        return [*shown, f"Error: {error}"]


def main() -> None:
    PATH.write_text("".join(f"{renewed(line)}\n" for line in lines()), encoding="utf-8")


if __name__ == "__main__":
    main()
