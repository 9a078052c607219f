"""Dispatch: which of the groups that host a model gets its next request.

A rule is one value, in one place: every kernel asks it for a sort key of each group, and sends the
request to the smallest, of equal keys to the lowest index. The arithmetic is elementwise and needs
nothing but operators, so that the same rule runs on any array, of any shape, in any kernel; and so
that rules can be checked where `Rules` are made, without loading JAX. A rule of your own:

    emptiest = DispatchRule("emptiest", order=lambda groups: groups.finish() - groups.now)
    rules = Rules(dispatch=emptiest)
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from beta_jax.checks import require_whole
from beta_jax.traits import Trait

Array = Any
"""Of whatever kind the kernel computes with: int64, elementwise operators, broadcasting."""


class Groups(NamedTuple):
    """What a rule sees of the groups that host a request's model; int64 arrays that broadcast.

    now: ticks, when the request arrives; the first one of a simulation arrives at 0.
    request: its index in the whole workload, also where a schedule serves that in segments.
    index: of the group in its placement.
    clock: ticks, when the last stage is free: in the past for an idle group, 0 before its first
        request.
    finish: a function without arguments, the ticks at which the group would finish the request.
    memory: what the rule remembers of the request's model.
    num_groups: more than any index, the same for all requests of a simulation.
    rank, num_hosts: functions without arguments: how many groups of lower index host the model, and
        how many groups do.
    unfinished: a function without arguments, how many requests that the group accepted are not
        through its last stage; for rules that declare it (`DispatchRule.max_unfinished`).
    """

    now: Array
    request: Array
    index: Array
    clock: Array
    finish: Callable[[], Array]
    memory: Array
    num_groups: int
    rank: Callable[[], Array]
    num_hosts: Callable[[], Array]
    unfinished: Callable[[], Array]


@dataclasses.dataclass(frozen=True)
class DispatchRule:
    """A dispatch rule.

    name: what tables and errors call it.
    order: the sort key of the groups, >= 0 and below 2^48.
    after: of a rule that remembers something of each model, what that becomes when one of its
        requests was sent to a group, from (memory, index of the group). initial: what it is first.
    traits: what shortcuts may rely on; nothing unless declared, then searches take longer.
    by_clock: whether the key is the clock itself, which kernels have at hand.
    then_by_clock: whether of equal keys the smaller clock goes before the lower index.
    max_unfinished: of a rule that asks for `Groups.unfinished`: where an infinite SLO leaves their
        number open, so many of a group are counted, and more are an error. 0: it does not ask.
    Raises ValueError where order or after give anything but whole numbers.
    """

    name: str
    order: Callable[[Groups], Array]
    after: Callable[[Array, Array], Array] | None = None
    initial: int = 0
    traits: Trait = Trait.NONE
    by_clock: bool = False
    then_by_clock: bool = False
    max_unfinished: int = 0

    def __post_init__(self) -> None:
        one = np.ones(1, np.int64)
        groups = Groups(
            one, one, one, one, lambda: one, one, 2, lambda: one, lambda: one, lambda: one
        )
        made = {"order": self.order(groups)}
        if self.after is not None:
            made["after"] = self.after(one, one)
        for name, value in made.items():
            kind = np.asarray(value).dtype
            if kind.kind not in "biu":
                raise ValueError(
                    f"dispatch rule {self.name}: {name} must give whole numbers, it gives {kind}"
                )

    def __str__(self) -> str:
        return self.name


class Dispatch(enum.StrEnum):
    """The rules that are known by name."""

    EARLIEST_FREE = "earliest_free"
    """The smallest last-stage clock, idle groups by their past clock (the published rule)."""
    EARLIEST_FINISH = "earliest_finish"
    """The group that would finish the request first."""
    ROUND_ROBIN = "round_robin"
    """The hosting groups in turn, one counter per model."""
    POWER_OF_TWO = "power_of_two"
    """Of two hosting groups drawn at random the one with the smaller last-stage clock."""
    SHORTEST_QUEUE = "shortest_queue"
    """The fewest unfinished requests, then the smaller last-stage clock (the real system's)."""


def power_of_two(seed: int, /) -> DispatchRule:
    """`Dispatch.POWER_OF_TWO` with draws of its own for every seed, an integer.

    Draw 0 or 1 of a request is a hash of the seed and of its index in the workload: so the rule is
    not `Trait.LOCAL`, as how many requests others send decides what is drawn. Both draws may give
    the same group. The name stands for seed 0. Raises ValueError for no integer of 64 bits.
    """
    require_whole("seed", seed, -(2**63), 2**64 - 1)
    return _power_of_two(int(seed))


@functools.cache  # equal rules are one rule: lanes share blocks, and programs
def _power_of_two(seed: int) -> DispatchRule:

    def order(groups: Groups) -> Array:
        undrawn = True
        for draw in range(2):
            bits = _shifted(_splitmix64(seed, 2 * groups.request + draw), 32)
            drawn = bits * groups.num_hosts() >> 32
            undrawn &= groups.rank() != drawn
        return undrawn

    name = f"{Dispatch.POWER_OF_TWO}{f'-{seed}' if seed else ''}"
    return DispatchRule(name, order, then_by_clock=True)


def _splitmix64(seed: int, index: Array) -> Array:
    """The bits, as int64, of output `index` of the generator (Steele, Lea and Flood, "Fast
    splittable pseudorandom number generators", OOPSLA 2014). Sums and products are equal modulo
    2^64, and kernels on a GPU know no others."""
    x = index * _signed(0x9E3779B97F4A7C15) + _signed(seed)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _signed(number: int) -> int:
    """What int64 makes of the lowest 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(x: Array, places: int) -> Array:
    """The bits of an int64 moved to the right, with zeros behind them."""
    return x >> places & (1 << 64 - places) - 1


RULES = {
    Dispatch.EARLIEST_FREE: DispatchRule(
        Dispatch.EARLIEST_FREE,
        order=lambda groups: groups.clock,
        traits=Trait.LOCAL,
        by_clock=True,
    ),
    Dispatch.EARLIEST_FINISH: DispatchRule(
        Dispatch.EARLIEST_FINISH, order=lambda groups: groups.finish(), traits=Trait.LOCAL
    ),
    Dispatch.ROUND_ROBIN: DispatchRule(
        Dispatch.ROUND_ROBIN,
        order=lambda groups: (
            groups.index - groups.memory - 1 + groups.num_groups * (groups.index <= groups.memory)
        ),
        after=lambda memory, index: index,
        initial=-1,
        traits=Trait.LOCAL,
    ),
    Dispatch.POWER_OF_TWO: power_of_two(0),
    Dispatch.SHORTEST_QUEUE: DispatchRule(
        Dispatch.SHORTEST_QUEUE,
        order=lambda groups: groups.unfinished(),
        traits=Trait.LOCAL,
        then_by_clock=True,
        max_unfinished=64,
    ),
}


def undeclared() -> Array:
    """`Groups.unfinished` of a rule that does not declare it. Raises ValueError."""
    raise ValueError("a rule that asks for unfinished() declares max_unfinished")


def find_rule(dispatch: str | DispatchRule) -> DispatchRule:
    """The rule of a name, or the rule itself. Raises ValueError for what is neither."""
    if isinstance(dispatch, DispatchRule):
        return dispatch
    if not isinstance(dispatch, str):
        raise ValueError(f"dispatch is a name or a DispatchRule, got {dispatch!r}")
    if dispatch not in RULES:
        raise ValueError(f"unknown dispatch {dispatch!r}; known: {', '.join(Dispatch)}")
    return RULES[Dispatch(dispatch)]
