"""What it takes to turn one placement into another: the replicas that change, the bytes loaded.

A placement says nothing of which devices a group is on, so an old group may become any new one of
the same configuration. They are matched such that most bytes of weights stay where they are, as in
a schedule under a load bandwidth (`placement.devices`). Everything else is loaded, also where
another device has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from beta_jax.placement.devices import match_groups, replica_bytes
from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.types import GB, ParallelConfig


@dataclasses.dataclass(frozen=True)
class GroupChange:
    """What becomes of a group.

    old, new: its positions in the two placements; None: it is new, or it is gone. Where both its
    configurations are there and differ, it is reconfigured, which keeps nothing but its devices.
    kept, added, dropped: indices of models. bytes_moved: weights that its devices load.
    """

    old: int | None
    new: int | None
    old_config: ParallelConfig | None
    new_config: ParallelConfig | None
    kept: tuple[int, ...]
    added: tuple[int, ...]
    dropped: tuple[int, ...]
    bytes_moved: int

    @property
    def kind(self) -> str:
        """`same`, `models` (only these change), `reconfigured`, `new` or `gone`."""
        if self.old_config is None or self.new_config is None:
            return "new" if self.old_config is None else "gone"
        if self.old_config != self.new_config:
            return "reconfigured"
        return "models" if self.added or self.dropped else "same"


@dataclasses.dataclass(frozen=True)
class Change:
    """The way from one placement to another; `str()` names everything that changes.

    groups: in order of the new placement, then those that are gone. model_names: by index.
    """

    groups: tuple[GroupChange, ...]
    model_names: tuple[str, ...]

    @property
    def bytes_moved(self) -> int:
        """Weights loaded, on all devices together."""
        return sum(group.bytes_moved for group in self.groups)

    @property
    def num_added(self) -> int:
        """Replicas loaded."""
        return sum(len(group.added) for group in self.groups)

    @property
    def num_dropped(self) -> int:
        """Replicas that are no more where they were."""
        return sum(len(group.dropped) for group in self.groups)

    @property
    def num_kept(self) -> int:
        """Replicas that stay where they are."""
        return sum(len(group.kept) for group in self.groups)

    def names(self, models: Iterable[int]) -> str:
        """The names of some models, separated by spaces."""
        return " ".join(self.model_names[model] for model in models)

    def __str__(self) -> str:
        lines = [
            f"{self.bytes_moved / GB:.2f} GiB of weights to load: {self.num_added} replicas added, "
            f"{self.num_dropped} dropped, {self.num_kept} kept"
        ]
        lines += [self._line(group) for group in self.groups if group.kind != "same"]
        same = sum(group.kind == "same" for group in self.groups)
        lines.append(f"  {same} {'group stays' if same == 1 else 'groups stay'} as before")
        return "\n".join(lines)

    def _line(self, group: GroupChange) -> str:
        old, new = f"group {group.old} {group.old_config}", f"group {group.new} {group.new_config}"
        where = {
            "models": old if group.old == group.new else f"{old}, then group {group.new}",
            "reconfigured": f"{old} becomes {new}",
            "new": f"{new} is new",
            "gone": f"{old} goes",
        }[group.kind]
        parts = {"keeps": group.kept, "drops": group.dropped, "loads": group.added}
        what = "; ".join(f"{verb} {self.names(some)}" for verb, some in parts.items() if some)
        moved = f" ({group.bytes_moved / GB:.2f} GiB)" if group.added else ""
        return f"  {where}: {what or 'has no models'}{moved}"


def compare_placements(problem: Problem, old: Placement, new: Placement) -> Change:
    """What changes from `old` to `new`, both of one problem, with the fewest bytes loaded.

    Groups are matched within each configuration, as many as there are on both sides. A group left
    over is a reconfigured one if the other placement has one left over of as many devices of the
    same pool. Raises PlacementError for placements that are not valid for the problem.
    """
    old.check(problem)
    new.check(problem)
    stay = match_groups(problem, old, new)
    gone = [a for a in range(len(old.groups)) if a not in stay.values()]
    changes = []
    for b, group in enumerate(new.groups):
        alike = (a for a in gone if _same_devices(old.groups[a].config, group.config))
        a = stay[b] if b in stay else next(alike, None)
        if a in gone:
            gone.remove(a)
        changes.append(_change(problem, old, new, a, b))
    changes += [_change(problem, old, new, a, None) for a in gone]
    return Change(tuple(changes), tuple(model.name for model in problem.models))


def _same_devices(a: ParallelConfig, b: ParallelConfig) -> bool:
    return a.num_devices == b.num_devices and a.pool == b.pool


def _change(
    problem: Problem, old: Placement, new: Placement, a: int | None, b: int | None
) -> GroupChange:
    """From the old group at `a` to the new one at `b`."""
    before = None if a is None else old.groups[a]
    after = None if b is None else new.groups[b]
    had = set() if before is None else {*before.models}
    has = set() if after is None else {*after.models}
    same = before is not None and after is not None and before.config == after.config
    kept = had & has if same else set()
    return GroupChange(
        old=a,
        new=b,
        old_config=None if before is None else before.config,
        new_config=None if after is None else after.config,
        kept=tuple(sorted(kept)),
        added=tuple(sorted(has - kept)),
        dropped=tuple(sorted(had - kept)),
        bytes_moved=0
        if after is None
        else sum(replica_bytes(problem, problem.models[m], after.config) for m in has - kept),
    )
