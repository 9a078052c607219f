"""Where the answer lies: bisection on ordered lists of settings, several lists at a time.

A line goes from what is hard to serve to what is easy. Bisection relies on that; as a search does
not guarantee it, one step on both sides of the boundary is tried besides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from beta_jax.planning.trials import Setting, Trial

GALLOP = (1.0, 1.25, 1.6, 2.0)
"""Tried at once while nothing meets the target: multiples of the position that may do."""
WIDTH = 3
"""Settings between two bounds that are tried at once."""


@dataclasses.dataclass(eq=False)
class Line:
    """Settings from hard to easy; all before `start` are thought to fail.

    trials: by position. gallops: whether easy settings are dear, so that the hard ones come first.
    """

    settings: Sequence[Setting]
    start: int = 0
    gallops: bool = True
    trials: dict[int, Trial] = dataclasses.field(default_factory=dict)

    def meeting(self, target: float) -> int | None:
        """Position of the hardest setting that meets the target, of those tried."""
        return min((i for i, trial in self.trials.items() if trial.meets(target)), default=None)

    def missing(self, target: float) -> int:
        """Position of the easiest setting before it that does not; -1 where there is none."""
        first = self.meeting(target)
        failed = (i for i in self.trials if first is None or i < first)
        return max(failed, default=min(self.start, self.start if first is None else first) - 1)

    def violations(self, target: float) -> list[int]:
        """Positions that miss the target although a harder setting meets it."""
        first = self.meeting(target)
        if first is None:
            return []
        return sorted(i for i, t in self.trials.items() if i > first and not t.meets(target))

    def wanted(self, target: float) -> list[int]:
        """What to try next; nothing if the boundary is known."""
        last = len(self.settings) - 1
        low, high = self.missing(target), self.meeting(target)
        if high is None:
            if low >= last:
                return []
            factors = GALLOP if self.gallops else ()
            tried = {min(max(round((low + 2) * factor) - 1, low + 1), last) for factor in factors}
            return sorted(tried or _between(low, last + 1))
        return _between(low, high)

    def beside(self, target: float) -> list[int]:
        """Positions next to the boundary that were not tried."""
        if (first := self.meeting(target)) is None:
            return []
        near = (first - 2, first - 1, first + 1)
        return [i for i in near if 0 <= i < len(self.settings) and i not in self.trials]


def _between(low: int, high: int) -> list[int]:
    """Positions that divide what lies between evenly."""
    inside = high - low - 1
    number = min(WIDTH, inside)
    return [low + 1 + (inside * (2 * i + 1)) // (2 * number) for i in range(number)]


def find_boundaries(
    lines: Sequence[Line],
    target: float,
    attempt: Callable[[Sequence[Setting]], Sequence[Trial]],
    *,
    beside: bool,
) -> None:
    """Try settings until the boundary of every line is known, those of a round together.

    beside: also the neighbours, and one step on both sides of them.
    """

    def wanted() -> list[tuple[Line, int]]:
        within = [(line, i) for line in lines for i in line.wanted(target)]
        if within or not beside:
            return within
        return [(line, i) for line in lines for i in line.beside(target)]

    while some := wanted():
        trials = attempt([line.settings[i] for line, i in some])
        for (line, i), trial in zip(some, trials, strict=True):
            line.trials[i] = trial
