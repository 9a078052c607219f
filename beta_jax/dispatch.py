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
from collections.abc import Callable
from typing import Any, NamedTuple

from beta_jax.traits import Trait

Array = Any
"""Of whatever kind the kernel computes with: int64, elementwise operators, broadcasting."""


class Groups(NamedTuple):
    """What a rule sees of the groups that host a request's model; int64 arrays that broadcast.

    now: ticks, when the request arrives; the first one of a simulation arrives at 0.
    index: of the group in its placement.
    clock: ticks, when the last stage is free: in the past for an idle group, 0 before its first
        request.
    finish: a function without arguments, the ticks at which the group would finish the request.
    memory: what the rule remembers of the request's model.
    num_groups: more than any index, the same for all requests of a simulation.
    """

    now: Array
    index: Array
    clock: Array
    finish: Callable[[], Array]
    memory: Array
    num_groups: int


@dataclasses.dataclass(frozen=True)
class DispatchRule:
    """A dispatch rule.

    name: what tables and errors call it.
    order: the sort key of the groups, >= 0 and below 2^48.
    after: of a rule that remembers something of each model, what that becomes when one of its
        requests was sent to a group, from (memory, index of the group). initial: what it is first.
    traits: what shortcuts may rely on; nothing unless declared, then searches take longer.
    by_clock: whether the key is the clock itself, which kernels have at hand.
    """

    name: str
    order: Callable[[Groups], Array]
    after: Callable[[Array, Array], Array] | None = None
    initial: int = 0
    traits: Trait = Trait.NONE
    by_clock: bool = False

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
        order=lambda groups: (groups.index - groups.memory - 1) % groups.num_groups,
        after=lambda memory, index: index,
        initial=-1,
        traits=Trait.LOCAL,
    ),
}


def find_rule(dispatch: str | DispatchRule) -> DispatchRule:
    """The rule of a name, or the rule itself. Raises ValueError for what is neither."""
    if isinstance(dispatch, DispatchRule):
        return dispatch
    if not isinstance(dispatch, str):
        raise ValueError(f"dispatch is a name or a DispatchRule, got {dispatch!r}")
    if dispatch not in RULES:
        raise ValueError(f"unknown dispatch {dispatch!r}; known: {', '.join(Dispatch)}")
    return RULES[Dispatch(dispatch)]
