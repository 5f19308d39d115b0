"""Ways to choose a schedule: what runs next, asked whenever more than one thing can.

Options are numbers: of host threads, and :data:`DEVICE` for the next event of the devices. Option 0 of the list is
what a kernel without preemption would do: go on with the thread that runs. A schedule is the list of answers, of which
those that are not 0 are its deviations.
"""

from __future__ import annotations

import random
from typing import Protocol

DEVICE = 0
SYSTEMATIC = 100
"""Ways to deviate once from the plain run up to which a scenario counts as small."""
PATIENCE = 120
"""Choices that an option may lose before it must be taken."""


class Policy(Protocol):
    """``choose`` gives the index of an option; ``preempts``: option 0 would go on with what ran last."""

    def choose(self, options: list[int], preempts: bool) -> int:
        """Which option."""


class Follow:
    """The schedule with these deviations: number of the choice -> answer."""

    def __init__(self, deviations: dict[int, int] | None = None) -> None:
        self.deviations, self._number = deviations or {}, -1

    def choose(self, options: list[int], preempts: bool) -> int:
        """As recorded; what is not there any more is taken for option 0."""
        self._number += 1
        answer = self.deviations.get(self._number, 0)
        return answer if answer < len(options) else 0


class RandomWalk:
    """Any option, with a probability that each thread has from the start, some a hundred times that of others: what is
    slow in one run is fast in the next."""

    def __init__(self, draw: random.Random, deviate: float = 0.25) -> None:
        self._draw, self._deviate = draw, deviate
        self._weight: dict[int, float] = {}

    def choose(self, options: list[int], preempts: bool) -> int:
        """Go on, or switch."""
        if preempts and self._draw.random() >= self._deviate:
            return 0
        for option in options:
            if option not in self._weight:
                self._weight[option] = 10 ** self._draw.uniform(-2.5, 0)
        return self._draw.choices(range(len(options)), [self._weight[option] for option in options])[0]


class Pct:
    """Random priorities, and ``depth`` - 1 places where the one that runs gets the lowest (Burckhardt et al.,
    "A randomized scheduler with probabilistic guarantees of finding bugs", recalled). ``length``: about how many
    choices a run has; as one in another order may have more, the places lie in up to eight times as many."""

    def __init__(self, draw: random.Random, depth: int, length: int) -> None:
        self._draw = draw
        length = max(length, 8) << draw.randrange(4)
        self._places = {draw.randrange(length) for _ in range(depth - 1)}
        self._priority: dict[int, float] = {}
        self._number, self._lowest = -1, 0.0
        self._waits: dict[int, int] = {}
        """Choices that each option has lost since it ran."""

    def choose(self, options: list[int], preempts: bool) -> int:
        """The highest priority, or who has waited too long: a spin of others is no schedule."""
        self._number += 1
        for option in options:
            if option not in self._priority:
                self._priority[option] = 1 + self._draw.random()
            self._waits[option] = self._waits.get(option, 0) + 1
        best = self._highest(options)
        oldest = max(options, key=lambda option: self._waits[option])
        if self._number in self._places:
            self._lowest -= 1
            self._priority[best] = self._lowest
            best = self._highest(options)
        elif self._waits[oldest] > PATIENCE:
            best = oldest
        self._waits[best] = 0
        return options.index(best)

    def _highest(self, options: list[int]) -> int:
        return max(options, key=lambda option: self._priority[option])


class NonPreemptive:
    """One CPU, a kernel without preemption: a thread runs until it sleeps; then anything may go on."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def choose(self, options: list[int], preempts: bool) -> int:
        """Only at a sleep is there a choice."""
        return 0 if preempts and options[0] != DEVICE else self._draw.randrange(len(options))


def single_deviations(widths: list[int]) -> list[tuple[int, int]]:
    """Every way to deviate once from a run whose choices had so many options, earliest first."""
    return [(number, answer) for number, width in enumerate(widths) for answer in range(1, width)]


def policy_of(number: int, draw: random.Random, widths: list[int]) -> Policy:
    """Schedule ``number`` of a hunt in what has a plain run with choices of these ``widths``: the plain one; if the
    scenario is small, each that deviates from it once, systematically; then PCT of rising depth and random walks by
    turns."""
    single = single_deviations(widths)
    if number == 0:
        return Follow()
    if len(single) <= SYSTEMATIC:
        if number <= len(single):
            return Follow(dict([single[number - 1]]))
        number -= len(single)
    if number % 2:
        return Pct(draw, 2 + number // 2 % 4, len(widths))
    return RandomWalk(draw, (0.05, 0.25, 0.6)[number // 2 % 3])
