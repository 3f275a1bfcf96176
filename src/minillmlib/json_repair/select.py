"""The values of a text, and the choice of the one that was meant."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from minillmlib.json_repair.parse_stack import Container

Merit: TypeAlias = tuple[bool, bool, bool]


class Candidate(msgspec.Struct, eq=False, kw_only=True):
    """One object or array of a text, which grows in place and never loses anything."""

    value: Container
    start: int  # position in the whole text, as `end`
    is_fenced: bool  # in a code block
    is_listed: bool  # separated from the previous candidate by white space or commas only
    is_joined: bool  # separated from it by a comma
    is_weak: bool  # perhaps a remark in brackets
    end: int | None = None  # None until it is known
    is_complete: bool = False  # its end was seen
    is_part: bool = False  # whether other parts of its JSON could not be read

    @property
    def merit(self) -> Merit:
        """Rank among the candidates: more is better."""
        return bool(self.value) and not self.is_weak, self.is_complete, self.is_fenced


def row_of(candidates: list[Candidate], place: int, *, is_joined: bool) -> slice:
    """Return the slice of candidates that stand in a row with this one, or are joined by commas."""
    name = "is_joined" if is_joined else "is_listed"
    first, end = place, place + 1
    while getattr(candidates[first], name):
        first -= 1
    while end < len(candidates) and getattr(candidates[end], name):
        end += 1
    return slice(first, end)


Ranking: TypeAlias = tuple[Candidate | None, Merit, Candidate | None, Merit]
_NO_MERIT: Merit = (False, False, False)
NO_RANKING: Ranking = (None, _NO_MERIT, None, _NO_MERIT)


def rank(candidate: Candidate, ranking: Ranking) -> Ranking:
    """Return the ranking after one more candidate.

    It begins with the last of the best candidates, or the first of the list of values it is in.
    """
    best, best_merit, first, last_merit = ranking
    merit = candidate.merit
    if merit != last_merit or not candidate.is_listed or first is None:
        first = candidate
    if merit >= best_merit:
        best, best_merit = first, merit
    return best, best_merit, first, merit
