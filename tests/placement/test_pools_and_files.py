"""Clusters of several pools: their profile, what is valid on them, their files, what moves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    PlacementError,
    Pool,
    Problem,
    Profile,
    ProfileError,
    compare_placements,
    load_placement,
    make_models,
    save_placement,
)
from beta_jax.placement.partition import enumerate_partitions

from instances import make_profile

ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)
OLD = make_profile({"t": {ONE: [0.4], TWO: [0.2, 0.2]}, "u": {TWO: [0.3, 0.3]}}, 2.0)
NEW = make_profile({"t": {ONE: [0.1]}, "v": {ONE: [0.2]}}, 3.0)
PROFILES = {"old": OLD, "new": NEW}
POOLS = Cluster(pools=[Pool("old", 2, 4.0, price_per_hour=1.0), Pool("new", 2, 3.0)])
MODELS = (Model("a", "t", 1.0), Model("b", "t", 1.0), Model("c", "u", 1.0))
PROBLEM = Problem(MODELS, POOLS, PROFILES)


def group(config: ParallelConfig, *models: int, pool: int = 0) -> Group:
    return Group(config._replace(pool=pool), models)


def test_a_configuration_is_looked_up_in_its_pool():
    profile = PROBLEM.profile
    assert profile.stage_latency_s("t", ONE).tolist() == [0.4]
    assert profile.stage_latency_s("t", ONE._replace(pool=1)).tolist() == [0.1]
    assert profile.configs("t") == (ONE, ONE._replace(pool=1), TWO)
    assert ("t", TWO._replace(pool=1)) not in profile and ("t", (1, 2)) in profile
    assert profile.types == ("t", "u", "v")
    assert Profile.of_pools([OLD]) is OLD
    swapped = Profile.of_pools([NEW, OLD])
    assert len({OLD, NEW, profile, swapped, Profile.of_pools([OLD, NEW])}) == 4


def test_slos_refer_to_the_first_pool_that_has_the_type_on_one_device():
    assert [m.slo_s for m in make_models(["t", "v"], PROFILES, slo_scale=2)] == [0.8, 0.4]
    with pytest.raises(ProfileError, match="no SLO can be derived for u"):
        make_models(["u"], PROFILES, slo_scale=2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([group(ONE, 0), group(ONE, 1, pool=1), group(ONE, 0, pool=1)], None),
        ([group(ONE, 0)] * 3, "uses 3 devices of 2 in pool old"),
        ([group(TWO, 0, pool=1)], "t has no profile there"),
        ([group(ONE, 0, 1, pool=1)], r"group 0 \(1,1,1\)@1 needs 0.00 GiB"),
        ([group(ONE, 0, pool=2)], "groups in pool 2 of 2"),
    ],
)
def test_what_is_valid(groups: list[Group], message: str | None):
    if message is None:
        Placement(tuple(groups)).check(PROBLEM)
    else:
        with pytest.raises(PlacementError, match=message):
            Placement(tuple(groups)).check(PROBLEM)


def test_partitions_are_products_and_then_each_pool_alone():
    two = Cluster(pools=[Pool("a", 2), Pool("b", 1)])
    of_a = [(ONE, ONE), (ParallelConfig(2, 1),), (TWO,)]
    of_b = [(ONE._replace(pool=1),)]
    assert enumerate_partitions(two) == [a + of_b[0] for a in of_a] + of_a + of_b
    assert enumerate_partitions(two.with_devices([0, 1])) == of_b


def test_placement_files_name_pools(tmp_path: Path):
    path = tmp_path / "p.json"
    placement = Placement((group(ONE, 0), group(ONE, 1, pool=1)))
    save_placement(path, placement, MODELS, POOLS.names)
    assert '"pool": "old"' in path.read_text() and '"pool": "new"' in path.read_text()
    assert load_placement(path, POOLS.names)[0] == placement
    with pytest.raises(PlacementError, match="group 0: unknown pool 'old'; no pools are known"):
        load_placement(path)
    with pytest.raises(PlacementError, match="unknown pool 'new'; pools are old, other"):
        load_placement(path, ["old", "other"])
    with pytest.raises(IndexError):
        save_placement(path, placement, MODELS)
    save_placement(path, Placement((group(ONE, 0),)), MODELS)
    assert "pool" not in path.read_text()
    assert load_placement(path, POOLS.names)[0].groups[0].config == ONE


def test_weights_do_not_stay_across_pools():
    old = Placement((group(ONE, 0), group(ONE, 1, pool=1)))
    new = Placement((group(ONE, 1), group(ONE, 1, pool=1)))
    change = compare_placements(PROBLEM, old, new)
    assert [g.kind for g in change.groups] == ["models", "same"] and change.bytes_moved == 2
    gone = compare_placements(PROBLEM, Placement((group(ONE, 0),)), Placement((new.groups[1],)))
    assert [g.kind for g in gone.groups] == ["new", "gone"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cluster(), "give their number, or pools"),
        (lambda: Cluster(2, pools=[Pool("a", 1)]), "give their number, or pools"),
        (lambda: Cluster(pools=[Pool("a", 0)]), "num_devices must be a whole number from 1"),
        (lambda: Cluster(pools=[Pool("a", 1), Pool("a", 2)]), "two pools have the same name"),
        (lambda: Pool("a", 1, price_per_hour=-1), "pool a: price_per_hour must be >= 0"),
        (lambda: Problem(MODELS, POOLS, OLD), "the profile of each pool by its name: old, new"),
        (lambda: Problem(MODELS, POOLS, {"old": OLD}), "there are profiles for old"),
        (lambda: PROBLEM.profile.to_dict(), "several pools is no file"),
    ],
)
def test_bad_input(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_prices():
    assert math.isnan(POOLS.price_per_hour)
    assert POOLS.with_devices([2, 0]).price_per_hour == 2.0
    assert str(Cluster(3)) == str(Cluster(pools=[Pool("devices", 3)]))
