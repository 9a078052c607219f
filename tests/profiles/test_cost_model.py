"""The profile made from published figures: what it must agree with, and how it must behave."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from beta_jax.profiles.cost_model import (
    ARCHITECTURES,
    DENSE_ALL_REDUCE_SHARE,
    compute_s,
    v100_profile,
)
from beta_jax.profiles.profile import load_profile
from beta_jax.types import GB, ParallelConfig

SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "data" / "profiles" / "v100.json"
PROFILE = v100_profile()
DEGREES = [(op, pp) for op in (1, 2, 4, 8) for pp in (1, 2, 4, 8, 16, 32)]
TABLE_1 = {"bert-1.3b": .151, "bert-2.6b": .238, "bert-6.7b": .395, "bert-103.5b": 4.6,
           "moe-1.3b": .150, "moe-2.4b": .171, "moe-5.3b": .234}  # fmt: skip


def latency_s(name, op, pp, batch=1):
    return PROFILE.stage_latency_s(name, ParallelConfig(op, pp), batch)


def steps(name, *, op=1, pp=1):
    """Pairs of profiled degrees, the second with the op or pp of the first multiplied."""
    for a in DEGREES:
        b = a[0] * op, a[1] * pp
        if (name, ParallelConfig(*a)) in PROFILE and (name, ParallelConfig(*b)) in PROFILE:
            yield a, b


def test_the_shipped_file_is_what_the_module_makes():
    assert load_profile(SHIPPED) == PROFILE


def test_all_types_and_configurations_that_a_device_can_hold_are_there():
    assert set(PROFILE.types) == {
        *TABLE_1, "bert-15b", "moe-7.1b",
    }  # fmt: skip
    fewest = {"bert-15b": 2, "bert-103.5b": 16}
    for name in PROFILE.types:
        expected = {ParallelConfig(*d) for d in DEGREES if d[0] * d[1] >= fewest.get(name, 1)}
        assert set(PROFILE.configs(name)) == expected
        for config in PROFILE.configs(name):
            assert PROFILE.batch_sizes(name, config) == (1, 2, 4, 8, 16)


def test_single_device_latencies_are_those_of_table_1():
    assert {name: PROFILE.single_device_latency_s(name) for name in TABLE_1} == TABLE_1
    np.testing.assert_allclose(latency_s("bert-103.5b", 1, 16).sum(), 4.6, rtol=1e-9)


def test_derived_latencies_are_plausible():
    """Larger models of a kind take longer, and none exceeds a V100's 125 TFLOP/s."""
    assert 0.395 < PROFILE.single_device_latency_s("bert-15b") < 4.6
    assert 0.171 < PROFILE.single_device_latency_s("moe-7.1b") < 0.4
    for name, architecture in ARCHITECTURES.items():
        assert architecture.flop() / compute_s(name) < 125e12


@pytest.mark.parametrize(
    ("name", "devices", "fits"),
    [
        ("bert-6.7b", 1, True),
        ("moe-7.1b", 1, False),
        ("moe-7.1b", 2, True),
        ("bert-15b", 2, False),
        ("bert-15b", 4, True),
        ("bert-103.5b", 16, True),
    ],
)
def test_memory_facts(name, devices, fits):
    config = ParallelConfig(1, devices)
    assert (PROFILE.weight_bytes(name, config).max() <= 13 * GB) == fits


def test_bert_103b_does_not_fit_8_devices():
    assert all(config.num_devices >= 16 for config in PROFILE.configs("bert-103.5b"))
    assert ARCHITECTURES["bert-103.5b"].weight_bytes() / 8 > 13 * GB


@pytest.mark.parametrize("name", PROFILE.types)
def test_weights_of_all_devices_sum_to_the_model(name):
    for config in PROFILE.configs(name):
        total = PROFILE.weight_bytes(name, config).sum() * config.op
        np.testing.assert_allclose(total, ARCHITECTURES[name].weight_bytes(), rtol=1e-6)


def test_counting_the_matrices_gives_the_known_weights():
    for architecture in ARCHITECTURES.values():
        if architecture.weight_gib is not None:
            counted = architecture.matrix_weight_bytes() / GB
            assert counted == pytest.approx(architecture.weight_gib, rel=0.005)


def test_the_share_of_reductions_is_that_of_the_dense_types_of_table_1():
    for name in ("bert-1.3b", "bert-2.6b", "bert-6.7b"):
        share = ARCHITECTURES[name].all_reduce_s(compute_s(name)) / compute_s(name)
        assert share == pytest.approx(DENSE_ALL_REDUCE_SHARE, abs=0.005)


@pytest.mark.parametrize("name", PROFILE.types)
def test_operator_parallelism_is_faster_but_wastes_devices(name):
    for (op, pp), (wider, _) in steps(name, op=2):
        before, after = latency_s(name, op, pp).sum(), latency_s(name, wider, pp).sum()
        assert before / 2 < after < before


@pytest.mark.parametrize("name", PROFILE.types)
def test_pipelines_are_slower_but_their_slowest_stage_is_faster(name):
    for (op, pp), (_, deeper) in steps(name, pp=2):
        before, after = latency_s(name, op, pp), latency_s(name, op, deeper)
        assert before.sum() < after.sum() < 1.5 * before.sum() + 1e-3 * deeper
        assert before.max() / 2 < after.max() < before.max()


@pytest.mark.parametrize("name", PROFILE.types)
def test_a_batch_costs_less_than_its_requests_one_by_one(name):
    for config in PROFILE.configs(name):
        for batch in (1, 2, 4, 8):
            small, large = (PROFILE.stage_latency_s(name, config, b) for b in (batch, 2 * batch))
            assert ((small < large) & (large < 2 * small)).all()
            memory = [PROFILE.act_bytes(name, config, b) for b in (batch, 2 * batch)]
            assert (memory[0] < memory[1]).all()


def test_the_measured_profile_is_not_far(shared):
    """data/README.md states these distances to a profile measured by others."""
    measured = load_profile(shared / "data" / "profiles" / "v100_measured.json")
    for name in measured.types:
        for config in measured.configs(name):
            ours, theirs = (
                PROFILE.stage_latency_s(name, config),
                measured.stage_latency_s(name, config),
            )
            if config.op == 1:
                assert ours.sum() == pytest.approx(theirs.sum(), rel=0.02)
            assert ours.sum() == pytest.approx(theirs.sum(), rel=0.26)
            assert 0.7 < ours.max() / theirs.max() < 1.26
        for pp in (1, 2):
            if (name, config := ParallelConfig(1, pp)) in measured:
                np.testing.assert_allclose(
                    PROFILE.weight_bytes(name, config),
                    measured.weight_bytes(name, config),
                    rtol=0.005,
                )
