"""What two placements differ in: fewest bytes over all ways to match their groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import (
    GB,
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    PlacementError,
    Problem,
    Profile,
    compare_placements,
)

from instances import CONFIGS, placements

ONE, PIPE, WIDE = ParallelConfig(1, 1), ParallelConfig(1, 2), ParallelConfig(2, 1)
QUARTERS = {"small": np.array([1, 1, 2, 4]) * GB / 8, "large": np.array([4, 4, 3, 1]) * GB / 4}
"""Weights of the quarters of a model, bytes."""


def make_problem() -> Problem:
    """Models a, b, c (small) and d (large), at any configuration."""
    types = {
        kind: {
            "configs": [
                {
                    "op": config.op,
                    "pp": config.pp,
                    "stage_latency_s": {"1": [0.1] * config.pp},
                    "act_bytes": {"1": [0.0] * config.pp},
                    "weight_bytes": list(quarters.reshape(config.pp, -1).sum(1) / config.op),
                }
                for config in {*CONFIGS, WIDE}
            ]
        }
        for kind, quarters in QUARTERS.items()
    }
    profile = Profile.from_dict({"format": "beta_jax.profile", "version": 1, "types": types})
    models = [Model(name, "large" if name == "d" else "small", 1.0) for name in "abcd"]
    return Problem(tuple(models), Cluster(64), profile)


PROBLEM = make_problem()
SIZE = {model.name: QUARTERS[model.type].sum() for model in PROBLEM.models}
some_placements = placements(len(PROBLEM.models), max_groups=4)


def of(*groups: tuple[ParallelConfig, str]) -> Placement:
    return Placement(tuple(Group(c, tuple(map("abcd".index, names))) for c, names in groups))


def size(models) -> float:
    return sum(SIZE["abcd"[model]] for model in models)


def size_of(placement: Placement) -> float:
    return sum(size(group.models) for group in placement.groups)


def most_kept(old: Placement, new: Placement) -> float:
    """Over all ways to put each old group in the place of a new one, or of none."""
    places = [*range(len(new.groups)), *[None] * len(old.groups)]
    return max(
        sum(
            size({*group.models} & {*new.groups[place].models})
            for group, place in zip(old.groups, chosen, strict=True)
            if place is not None and new.groups[place].config == group.config
        )
        for chosen in {*itertools.permutations(places, len(old.groups))}
    )


@given(some_placements, some_placements)
def test_no_other_way_to_match_groups_loads_less(old: Placement, new: Placement):
    change = compare_placements(PROBLEM, old, new)
    assert change.bytes_moved == size_of(new) - most_kept(old, new)


@given(some_placements, some_placements)
def test_the_groups_of_a_change_are_those_of_both_placements(old: Placement, new: Placement):
    groups = compare_placements(PROBLEM, old, new).groups
    assert [group.new for group in groups if group.new is not None] == [*range(len(new.groups))]
    assert sorted(g.old for g in groups if g.old is not None) == [*range(len(old.groups))]
    for group in groups:
        kept = {*group.kept}
        for index, config, placement, others in (
            (group.old, group.old_config, old, group.dropped),
            (group.new, group.new_config, new, group.added),
        ):
            own = Group(config, kept | {*others}) if config else None
            assert own == (None if index is None else placement.groups[index])
            assert not kept & {*others}
        assert not kept or group.old_config == group.new_config
        assert group.bytes_moved == size(group.added)
        if group.kind in ("new", "gone"):
            assert (group.old is None, group.new is None) == (
                group.kind == "new",
                group.kind == "gone",
            )
        else:
            assert group.old_config.num_devices == group.new_config.num_devices


@given(some_placements, some_placements, st.randoms())
def test_order_of_groups_is_irrelevant_and_what_stays_is_the_same_both_ways(old, new, random):
    moved = compare_placements(PROBLEM, old, new).bytes_moved
    shuffled = (Placement(tuple(random.sample(p.groups, len(p.groups)))) for p in (old, new))
    assert compare_placements(PROBLEM, *shuffled).bytes_moved == moved
    back = compare_placements(PROBLEM, new, old).bytes_moved
    assert size_of(new) - moved == size_of(old) - back


@given(some_placements)
def test_nothing_changes_between_equal_placements(placement: Placement):
    change = compare_placements(PROBLEM, placement, placement)
    assert change.bytes_moved == 0
    assert {group.kind for group in change.groups} <= {"same"}


def test_every_kind_of_change_is_told_and_weighed():
    old = of((PIPE, "ab"), (PIPE, "cd"), (ONE, "a"), (ONE, ""))
    new = of((ONE, "a"), (PIPE, "bcd"), (WIDE, "ab"), (ONE, ""), (ONE, "c"))
    change = compare_placements(PROBLEM, old, new)
    assert [(g.kind, g.old, g.new) for g in change.groups] == [
        ("same", 2, 0),
        ("models", 1, 1),
        ("reconfigured", 0, 2),
        ("same", 3, 3),
        ("new", None, 4),
    ]
    assert (change.num_added, change.num_dropped, change.num_kept) == (4, 2, 3)
    assert change.bytes_moved == 4 * GB
    assert str(change) == (
        "4.00 GiB of weights to load: 4 replicas added, 2 dropped, 3 kept\n"
        "  group 1 (1,1,2): keeps c d; loads b (1.00 GiB)\n"
        "  group 0 (1,1,2) becomes group 2 (1,2,1): drops a b; loads a b (2.00 GiB)\n"
        "  group 4 (1,1,1) is new: loads c (1.00 GiB)\n"
        "  2 groups stay as before"
    )
    assert "  group 4 (1,1,1) goes: drops c\n" in str(compare_placements(PROBLEM, new, old))


def test_the_largest_models_decide_which_group_a_group_becomes():
    change = compare_placements(PROBLEM, of((ONE, "abd")), of((ONE, "abc"), (ONE, "d")))
    assert [(g.kind, g.old) for g in change.groups] == [("new", None), ("models", 0)]
    assert change.bytes_moved == 3 * GB


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (of((PIPE, "aa")), "hosts a model twice"),
        (Placement((Group(ONE, (4,)),)), r"hosts models \[4\] of 4"),
        (of((ParallelConfig(8, 8), "a")), "no profile"),
        (Placement((Group(ONE),) * 65), "65 devices of 64"),
    ],
)
def test_placements_that_are_not_valid_are_refused(bad: Placement, message: str):
    for pair in ((bad, Placement()), (Placement(), bad)):
        with pytest.raises(PlacementError, match=message):
            compare_placements(PROBLEM, *pair)
