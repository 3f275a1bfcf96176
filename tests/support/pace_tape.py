"""Requests that come, go and end on a pace at given times, and all that is seen of that from outside.

A tape is a text with a line for each step. `play` returns the tape of steps that follow from a seed,
so that any change of a rate, a pause, a charge or an order shows in it.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from minillmlib import Pace, RateLimits
from minillmlib.types.pace import PacedRequest
from minillmlib.types.usage import Usage

NOTHING = RateLimits()


def shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.6g}"


class Tape:
    """Plays steps on a pace and notes what each leads to."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.lines: list[str] = []
        self.went: list[str] = []
        self.names: dict[PacedRequest, int] = {}
        self.in_flight: list[PacedRequest] = []
        self.in_line: list[PacedRequest] = []
        self.limits, self.is_shut = NOTHING, False

    def come(self, now: float, size: int, max_output: int | None, *, is_first: bool) -> None:
        """Let a request join the line; one that may is admitted before it joins."""
        request = self.pace.new_request()
        name = self.names[request] = len(self.names)
        request.size, request.max_output = size, max_output
        if is_first and self.pace.admit(request, now):
            self.in_flight.append(request)
            self.note(now, f"{name} comes and goes {self.charge(request)}")
            request.on_decided = lambda: self.decide(request)
        else:
            request.on_decided = lambda: self.decide(request)
            self.pace.join(request)
            self.in_line.append(request)
            self.note(now, f"{name} comes")

    def decide(self, request: PacedRequest) -> None:
        self.in_line.remove(request)
        if request.error is not None:
            self.went.append(f"{self.names[request]} may not go")
        elif request.sent_at > -math.inf:
            self.in_flight.append(request)
            self.went.append(f"{self.names[request]} {self.charge(request)}")

    @staticmethod
    def charge(request: PacedRequest) -> str:
        return "(" + " ".join(map(shown, request.charge)) + ")"

    def end(self, now: float, request: PacedRequest, how: str, limits: RateLimits) -> None:
        """Let a request in flight end."""
        self.in_flight.remove(request)
        name = self.names[request]
        if how == "refused":
            pause = self.pace.refuse(request, now, limits, None)
        elif how.startswith("refused for "):
            pause = self.pace.refuse(request, now, limits, float(how.rpartition(" ")[2]))
        else:
            usage = {
                "answered": Usage(
                    uncached_input_tokens=request.size // 3 + 1,
                    cache_read_tokens=request.size // 5,
                    cache_write_tokens=7,
                    completion_tokens=request.size // 4,
                ),
                "answered without counts": Usage(completion_tokens=3),
            }.get(how)
            is_answer = how.startswith("answered")
            self.pace.settle(request, now, limits, is_answer=is_answer, usage=usage)
            self.note(now, f"{name} is {how}")
            return
        if pause is not None:
            self.in_line.append(request)
            self.pace.join(request)
        self.note(now, f"{name} is {how}: {shown(pause)}")

    def leave(self, now: float, request: PacedRequest) -> None:
        name, place = self.names[request], "flight" if request in self.in_flight else "line"
        if place == "flight":
            self.in_flight.remove(request)
            request.on_decided = None
        has_left = self.pace.leave(request)
        self.note(now, f"{name} leaves {place}: {has_left}, {self.pace.leave(request)}")

    def note(self, now: float, what: str) -> None:
        """Serve the line, and write a line about a step."""
        delay = self.pace.serve(now)
        facts = [f"{now:.6g} {what}", *self.went]
        self.went.clear()
        if self.pace.limits != self.limits:
            self.limits = self.pace.limits
            facts.append(repr(self.limits))
        if self.pace.is_shut is not self.is_shut:
            self.is_shut = self.pace.is_shut
            facts.append(f"shut: {self.is_shut}")
        if self.pace.shortfall:
            facts.append(f"{self.pace.shortfall} short")
        if self.pace.waiting or delay is not None:
            facts.append(f"line {self.pace.waiting} for {shown(delay)}")
        self.lines.append("; ".join(facts))


class Plan(NamedTuple):
    """What may happen on a tape, and how often: the choices are repeated for that."""

    pace: dict[str, int]
    seed: int
    waits: tuple[float, ...]
    ends: tuple[str, ...]
    stated: tuple[RateLimits, ...] = (NOTHING,)
    steps: int = 60
    shares: int = 1
    most: int = 8  # in line, before one ends rather than one comes
    sizes: tuple[int, ...] = (10, 400, 3000)
    longest: tuple[int | None, ...] = (None, 100, 1000)
    grants: tuple[tuple[int, float, float], ...] = ()  # requests, from so many seconds on, interval


def play(plan: Plan) -> list[str]:
    """Return the lines of a plan."""
    dice = random.Random(plan.seed)
    pick = lambda some: some[int(dice.random() * len(some))]  # noqa: E731 - the same in any Python
    tape, now = Tape(Pace(**plan.pace).split(plan.shares)[0]), 100.0
    if plan.grants:
        tape.pace.use_grants()
    for _ in range(plan.steps):
        now += pick(plan.waits)
        step = dice.random()
        if plan.grants and step < 0.15:
            requests, later, interval = pick(plan.grants)
            tape.pace.grant(requests, now + later, interval)
            tape.note(now, f"{requests} are granted from {now + later:.6g} on each {interval} s")
        elif step < 0.04 and tape.in_line + tape.in_flight:
            tape.leave(now, pick(tape.in_line + tape.in_flight))
        elif tape.in_flight and (step > 0.5 or len(tape.in_line) >= plan.most):
            tape.end(now, pick(tape.in_flight), pick(plan.ends), pick(plan.stated))
        elif len(tape.in_line) < plan.most:
            tape.come(now, pick(plan.sizes), pick(plan.longest), is_first=dice.random() < 0.3)
        else:
            tape.note(now, "nobody comes")
    return [*tape.lines, repr(tape.pace)]
