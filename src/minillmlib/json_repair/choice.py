"""Which of the values in a text is the one that was meant."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from minillmlib.json_repair.growing import Candidate

__all__ = ["Choice"]

Merit: TypeAlias = tuple[bool, bool, bool]


class _Ranked(NamedTuple):
    """What is known of some candidates: the chosen one, and the first of the last list."""

    merit: Merit
    chosen: Candidate
    last_merit: Merit
    first: Candidate


class Choice:
    """The last of the best; if it continues a list of values, the first of that list.

    Each candidate but the last is looked at once, as only the last can change.
    """

    def __init__(self, candidates: list[Candidate]) -> None:
        self._candidates = candidates
        self._ended: Candidate | None = None  # the last one that was looked at
        self._number = 0
        self._ranked: _Ranked | None = None

    def chosen(self) -> Candidate | None:
        """The choice among the candidates that there are. O(those that are new)."""
        candidates = self._candidates
        if not candidates:
            return None
        last = min(self._number, len(candidates)) - 1
        if self._number and candidates[last] is not self._ended:
            self._number, self._ranked = 0, None  # those before were thoughts
        while self._number < len(candidates) - 1:
            self._ended = candidates[self._number]
            self._ranked = _with(self._ranked, self._ended)
            self._number += 1
        return _with(self._ranked, candidates[-1]).chosen


def _with(ranked: _Ranked | None, candidate: Candidate) -> _Ranked:
    merit = _merit(candidate)
    if ranked is None:
        return _Ranked(merit, candidate, merit, candidate)
    first = ranked.first if candidate.is_listed and merit == ranked.last_merit else candidate
    if merit < ranked.merit:
        return _Ranked(ranked.merit, ranked.chosen, merit, first)
    return _Ranked(merit, first, merit, first)


def _merit(candidate: Candidate) -> Merit:
    is_substantial = bool(candidate.value) and not candidate.is_weak
    return is_substantial, candidate.is_complete, candidate.is_fenced
