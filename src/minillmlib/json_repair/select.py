"""The values of a text, and the choice of the one that was meant."""

from __future__ import annotations

from typing import TypeAlias

from minillmlib.json_repair.parse_stack import Container

__all__ = ["Candidate", "CandidateSelector"]

Merit: TypeAlias = tuple[bool, bool, bool]
_NO_MERIT: Merit = (False, False, False)


class Candidate:
    """One object or array of a text, which grows in place and never loses anything.

    Attributes:
        value: The part of it that is known.
        start: Position where it begins.
        end: Position where it ends, once that is known.
        is_complete: Whether its end was seen.
        is_fenced: Whether it is in a code block.
        is_listed: Whether only white space separates it from the previous candidate.
        is_weak: Whether it may be a remark in brackets.
    """

    __slots__ = ("end", "is_complete", "is_fenced", "is_listed", "is_weak", "start", "value")

    def __init__(
        self, value: Container, start: int, *, is_fenced: bool, is_listed: bool, is_weak: bool
    ) -> None:
        self.value = value
        self.start = start
        self.end: int | None = None
        self.is_complete = False
        self.is_fenced = is_fenced
        self.is_listed = is_listed
        self.is_weak = is_weak

    @property
    def merit(self) -> Merit:
        """Rank among the candidates: more is better."""
        return bool(self.value) and not self.is_weak, self.is_complete, self.is_fenced


class CandidateSelector:
    """Picks the last of the best candidates, or the first of the list of values it belongs to.

    Each candidate but the last is ranked once, as only the last can change.
    """

    def __init__(self, candidates: list[Candidate]) -> None:
        self._candidates = candidates
        self._reset()

    def _reset(self) -> None:
        self._last: Candidate | None = None  # of those that were ranked
        self._count = 0
        self._best_merit = self._last_merit = _NO_MERIT
        self._best: Candidate | None = None
        self._first: Candidate | None = None  # of the list that the last one belongs to

    def best(self) -> Candidate | None:
        """Return the best candidate so far, if there is one. O(new candidates)."""
        candidates = self._candidates
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        last = min(self._count, len(candidates)) - 1
        if self._count and candidates[last] is not self._last:
            self._reset()  # the ranked ones were thoughts, and are gone
        self._rank(candidates[self._count : -1])
        return self._best_with(candidates[-1])

    def _rank(self, candidates: list[Candidate]) -> None:
        first, last_merit = self._first, self._last_merit
        for candidate in candidates:
            merit = candidate.merit
            if merit != last_merit or not candidate.is_listed or first is None:
                first, last_merit = candidate, merit
            if merit >= self._best_merit:
                self._best_merit, self._best = merit, first
            self._last = candidate
        self._first, self._last_merit = first, last_merit
        self._count += len(candidates)

    def _best_with(self, candidate: Candidate) -> Candidate:
        merit = candidate.merit
        if self._best is not None and merit < self._best_merit:
            return self._best
        continues_list = candidate.is_listed and merit == self._last_merit
        return self._first if continues_list and self._first else candidate
