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
    is_part: bool = False  # of JSON whose other parts could not be read

    @property
    def merit(self) -> Merit:
        """Rank among the candidates: more is better."""
        return bool(self.value) and not self.is_weak, self.is_complete, self.is_fenced


def row_of(candidate: Candidate, candidates: list[Candidate], *, is_joined: bool) -> list[Candidate]:
    """Return the candidates in a row with this one, or only those that commas join."""
    first = last = next(
        place for place, other in enumerate(candidates) if other is candidate
    )
    linked = [other.is_joined if is_joined else other.is_listed for other in candidates]
    while linked[first]:
        first -= 1
    while last + 1 < len(candidates) and linked[last + 1]:
        last += 1
    return candidates[first : last + 1]


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
