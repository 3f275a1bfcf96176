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
    is_listed: bool  # separated from the previous candidate by white space only
    is_weak: bool  # perhaps a remark in brackets
    end: int | None = None  # None until it is known
    is_complete: bool = False  # its end was seen

    @property
    def merit(self) -> Merit:
        """Rank among the candidates: more is better."""
        return bool(self.value) and not self.is_weak, self.is_complete, self.is_fenced


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
