"""The values of a text, and the choice of the one that was meant."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from minillmlib.json_repair.parse_stack import Container

Merit: TypeAlias = tuple[bool, bool, bool]


class Candidate(msgspec.Struct, eq=False, kw_only=True):
    """One object or array of a text, which grows in place and never loses anything.

    Attributes:
        value: The part of it that is known.
        start: Position where it begins.
        is_fenced: Whether it is in a code block.
        is_listed: Whether only white space separates it from the previous candidate.
        is_weak: Whether it may be a remark in brackets.
        end: Position where it ends, once that is known.
        is_complete: Whether its end was seen.
    """

    value: Container
    start: int
    is_fenced: bool
    is_listed: bool
    is_weak: bool
    end: int | None = None
    is_complete: bool = False

    @property
    def merit(self) -> Merit:
        """Rank among the candidates: more is better."""
        return bool(self.value) and not self.is_weak, self.is_complete, self.is_fenced


Ranking: TypeAlias = tuple[Candidate | None, Merit, Candidate | None, Merit]
_NO_MERIT: Merit = (False, False, False)
_NO_RANKING: Ranking = (None, _NO_MERIT, None, _NO_MERIT)


class CandidateSelector:
    """Picks the last of the best candidates, or the first of the list of values it belongs to.

    Each candidate but the last is ranked once, as only the last can change.
    """

    def __init__(self, candidates: list[Candidate]) -> None:
        self._candidates = candidates
        self._ranked = 0
        self._last: Candidate | None = None
        self._ranking = _NO_RANKING

    def best(self) -> Candidate | None:
        """Return the best candidate so far, if there is one. O(new candidates)."""
        candidates = self._candidates
        if not candidates:
            return None
        if self._ranked and candidates[min(self._ranked, len(candidates)) - 1] is not self._last:
            self._ranked, self._ranking = 0, _NO_RANKING  # the ranked ones were thoughts
        for candidate in candidates[self._ranked : -1]:
            self._ranking = _rank(candidate, self._ranking)
            self._last = candidate
        self._ranked = len(candidates) - 1
        return _rank(candidates[-1], self._ranking)[0]


def _rank(candidate: Candidate, ranking: Ranking) -> Ranking:
    """Return the ranking after one more candidate; `first` is the first of its list of values."""
    best, best_merit, first, last_merit = ranking
    merit = candidate.merit
    if merit != last_merit or not candidate.is_listed or first is None:
        first = candidate
    if merit >= best_merit:
        best, best_merit = first, merit
    return best, best_merit, first, merit
