"""Which of the values in a text is the one that was meant."""

from __future__ import annotations

from typing import TypeAlias

from minillmlib.json_repair.parse_stack import Candidate

__all__ = ["Choice"]

Merit: TypeAlias = tuple[bool, bool, bool]
_NO_MERIT: Merit = (False, False, False)


class Choice:
    """The last of the best; if it continues a list of values, the first of that list.

    Each candidate but the last is looked at once, as only the last can change.
    """

    def __init__(self, candidates: list[Candidate]) -> None:
        self._candidates = candidates
        self._forget()

    def _forget(self) -> None:
        self._ended: Candidate | None = None  # the last one that was looked at
        self._number = 0
        self._merit = self._last_merit = _NO_MERIT  # of the best so far, and of the last one
        self._best: Candidate | None = None
        self._first: Candidate | None = None  # of the list that the last one belongs to

    def chosen(self) -> Candidate | None:
        """The choice among the candidates that there are. O(those that are new)."""
        candidates = self._candidates
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        last = min(self._number, len(candidates)) - 1
        if self._number and candidates[last] is not self._ended:
            self._forget()  # those before were thoughts
        self._look_at(candidates[self._number : -1])
        return self._with(candidates[-1])

    def _look_at(self, candidates: list[Candidate]) -> None:
        first, last_merit = self._first, self._last_merit
        for candidate in candidates:
            merit = _merit(candidate)
            if merit != last_merit or not candidate.is_listed or first is None:
                first, last_merit = candidate, merit
            if merit >= self._merit:
                self._merit, self._best = merit, first
            self._ended = candidate
        self._first, self._last_merit = first, last_merit
        self._number += len(candidates)

    def _with(self, candidate: Candidate) -> Candidate:
        merit = _merit(candidate)
        if self._best is not None and merit < self._merit:
            return self._best
        goes_on = candidate.is_listed and merit == self._last_merit
        return self._first if goes_on and self._first else candidate


def _merit(candidate: Candidate) -> Merit:
    is_substantial = bool(candidate.value) and not candidate.is_weak
    return is_substantial, candidate.is_complete, candidate.is_fenced
