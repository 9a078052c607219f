"""Placements and partitions: what is valid, how they read, and their files."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    PlacementError,
    Problem,
    Schedule,
    enumerate_partitions,
    load_placement,
    make_models,
    save_placement,
)

from instances import CONFIGS, make_profile, placements

PIPELINE = ParallelConfig(1, 8)
MODELS = tuple(Model(f"m{i}", "t", slo_s) for i, slo_s in enumerate((1.5, 0.25, math.inf)))


def test_reads_as_runs_of_equal_groups():
    groups = [Group(PIPELINE)] * 4 + [Group(ParallelConfig(2, 2))]
    assert str(Placement(tuple(groups))) == "4x(1,1,8)+1x(1,2,2)"
    assert str(Placement()) == "empty"
    assert str(Schedule((0.0, 1.0), (Placement(), Placement(tuple(groups[:1]))))) == (
        "2 segments of 1x(1,1,8), empty"
    )


def test_canonical_order_is_by_models_with_empty_groups_first():
    hosted = [(1,), (0, 2), (), (0,), (0, 1)]
    placement = Placement(tuple(Group(PIPELINE, models) for models in hosted)).canonical()
    assert [group.models for group in placement.groups] == [(), (0,), (0, 1), (0, 2), (1,)]


def test_memory_may_be_filled_exactly():
    problem = Problem(
        MODELS, Cluster(1, memory_bytes=2.0), make_profile({"t": {ParallelConfig(1, 1): [0.1]}})
    )
    Placement((Group(ParallelConfig(1, 1), (0, 2)),)).check(problem)
    with pytest.raises(PlacementError, match=r"group 0 \(1,1,1\) needs .* GiB"):
        Placement((Group(ParallelConfig(1, 1), (0, 1, 2)),)).check(problem)


@pytest.mark.parametrize("count", [3, 6, 7, 1000])
def test_models_that_share_a_device_evenly_fill_it(count: int):
    """Shares of a byte are lost, so that sums of them cannot be too much."""
    one = ParallelConfig(1, 1)
    models = tuple(Model(f"m{i}", "t", 1.0) for i in range(count + 1))
    profile = make_profile({"t": {one: [0.1]}}, weight_bytes=13 * 2**30 / count)
    problem = Problem(models, Cluster(1), profile)
    Placement((Group(one, tuple(range(count))),)).check(problem)
    with pytest.raises(PlacementError, match=r"needs .* GiB"):
        Placement((Group(one, tuple(range(count + 1))),)).check(problem)


@given(
    st.one_of(
        placements(3),
        st.builds(lambda a, b: Schedule((0.0, 2.5), (a, b)), placements(3), placements(3)),
    )
)
def test_files_keep_everything(
    tmp_path_factory: pytest.TempPathFactory, placement: Placement | Schedule
):
    path = tmp_path_factory.mktemp("placement") / "p.json"
    save_placement(path, placement, MODELS)
    loaded, models = load_placement(path)
    assert loaded == placement
    assert [(m.name, m.type, m.slo_s) for m in models] == [
        (m.name, m.type, m.slo_s) for m in MODELS
    ]


VALID = {
    "format": "beta_jax.placement",
    "version": 1,
    "models": [{"name": "a", "type": "t", "slo_s": 1.0}],
    "groups": [{"op": 1, "pp": 1, "models": ["a"]}],
}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 2}, "not a placement file"),
        ({"groups": [{"op": 1, "pp": 1, "models": ["b"]}]}, "group 0: unknown or missing 'b'"),
        ({"groups": [{"op": 1, "models": []}]}, "group 0: unknown or missing 'pp'"),
        ({"groups": [{"op": 0, "pp": 1, "models": []}]}, "group 0: op and pp must be >= 1"),
        ({"groups": [{"op": "x", "pp": 1, "models": []}]}, "group 0: invalid literal"),
        ({"groups": 3}, "group"),
        ({"models": [{"name": "a", "type": "t"}]}, "models: unknown or missing 'slo_s'"),
        ({"models": [{"name": "a", "type": "t", "slo_s": -1}]}, "SLO must be > 0"),
        ({"models": VALID["models"] * 2}, "two models have the same name"),
        ({"segments": []}, "one start time for each"),
        (
            {"segments": [{"start_s": 2, "groups": []}, {"start_s": 1, "groups": []}]},
            "must increase",
        ),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path, change, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**VALID, **change}))
    with pytest.raises(PlacementError, match=message) as caught:
        load_placement(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff", "[" * 20_000 + "]" * 20_000])
def test_not_a_placement_file(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(PlacementError, match=r"bad\.json"):
        load_placement(path)


def test_partitions_of_sixteen_devices():
    partitions = enumerate_partitions(Cluster(16))
    assert [str(Placement(tuple(Group(config) for config in p))) for p in partitions] == [
        "16x(1,1,1)",
        "8x(1,2,1)",
        "8x(1,1,2)",
        "4x(1,4,1)",
        "4x(1,2,2)",
        "4x(1,1,4)",
        "2x(1,4,2)",
        "2x(1,2,4)",
        "2x(1,1,8)",
        "1x(1,4,4)",
        "1x(1,2,8)",
    ]


@given(st.integers(1, 200), st.sampled_from((1, 4, 6, 8)))
def test_partitions_use_every_device_and_respect_nodes(num_devices: int, devices_per_node: int):
    for partition in enumerate_partitions(Cluster(num_devices, devices_per_node=devices_per_node)):
        assert sum(config.num_devices for config in partition) == num_devices
        size = partition[0].num_devices
        assert size <= devices_per_node or size % devices_per_node == 0
        assert partition[0].pp <= 8 and partition[0].op <= 4
        rest = [c for c in partition if c != partition[0]]
        assert all(config.op == 1 for config in rest)
        assert [c.num_devices for c in rest] == sorted({c.num_devices for c in rest})


@pytest.mark.parametrize("slo_scale", [0.0, -1.0, math.nan])
def test_slo_must_be_positive(slo_scale: float):
    profile = make_profile({"t": {CONFIGS[0]: [0.1]}})
    with pytest.raises(ValueError, match="SLO scale must be > 0"):
        make_models(["t"], profile, slo_scale=slo_scale)
    with pytest.raises(ValueError, match="SLO must be > 0"):
        Model("m", "t", slo_scale)


def test_problem_needs_profiled_and_distinct_models():
    profile = make_profile({"t": {CONFIGS[0]: [0.1]}})
    with pytest.raises(ValueError, match="'u'"):
        Problem((Model("m", "u", 1.0),), Cluster(1), profile)
    with pytest.raises(ValueError, match=r"names must differ: \['m'\]"):
        Problem((Model("m", "t", 1.0),) * 2, Cluster(1), profile)
    with pytest.raises(ValueError, match="at least one model"):
        Problem((), Cluster(1), profile)
    with pytest.raises(ValueError, match="needs devices"):
        Cluster(0)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PlacementError, match=r"gone\.json: No such file"):
        load_placement(tmp_path / "gone.json")
