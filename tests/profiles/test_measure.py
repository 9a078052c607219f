"""Measuring: models that are cut give what the whole gives, and every span is timed once."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import GB, ParallelConfig, ProfileError, load_profile, save_profile
from beta_jax.profiles.architectures import Architecture
from beta_jax.profiles.measure import CUTS, Measured, MeasureError, MeasureSettings
from beta_jax.profiles.measure.model import PARTS, Span, SplitModel

import split_models
from bench import ACT_BYTES, COST_S, QUICK, Bench

ROOT = Path(__file__).resolve().parents[2]
SHAPE = Architecture(sequence=4, hidden=16, layers=6, heads=4, vocabulary=32)
MIXED = dataclasses.replace(SHAPE, experts=4, expert_every=2)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    made.install(monkeypatch)
    return made


@pytest.mark.parametrize("name", split_models.SHAPES)
def test_however_a_model_is_cut_it_gives_what_it_is_defined_to_give(name):
    assert split_models.largest_difference(split_models.SHAPES[name], op=1) < 1e-5


def test_so_it_does_on_several_devices():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
    }
    done = subprocess.run(
        [sys.executable, ROOT / "tests/split_models.py", "bert:2", "llama:2", "llama:4"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [*map(float, done.stdout.split())]
    assert len(found) == 3 and max(found) < 1e-5


def test_weights_look_random_in_every_layer():
    shape = split_models.SHAPES["bert"]
    first, second = (
        SplitModel(shape, jax.local_devices()[:1], "float32", seed=seed).load(Span(0, 5))
        for seed in (0, 1)
    )
    drawn = [np.ravel(part["query"]) for part in (*first, *second) if "query" in part]
    drawn += [np.ravel(part["key"]) for part in first if "query" in part]
    together = np.stack(drawn) * shape.hidden**0.5
    assert abs(together.mean()) < 0.05 and together.var() == pytest.approx(1, rel=0.05)
    assert abs(np.corrcoef(together) - np.eye(len(drawn))).max() < 5 / drawn[0].size ** 0.5
    assert np.linalg.matrix_rank(first[0]["token"]) == shape.hidden


def test_it_can_be_lowered_for_a_gpu_from_here():
    for shape in split_models.SHAPES.values():
        model = SplitModel(shape, jax.local_devices()[:1], "bfloat16")
        for part in PARTS:
            text = model.trace(part, 2).lower(lowering_platforms=("cuda",)).as_text()
            assert "bf16" in text and "f64" not in text


def test_devices_share_what_can_be_cut():
    """All but norms, positions, routers, and the biases that are added once."""
    for shape in split_models.SHAPES.values():
        weights = [w for layer in range(5) for p in shape.parts(layer)
                   for w in shape.weights(p).values()]  # fmt: skip
        cut = sum(w.size for w in weights if w.axis is not None)
        whole = sum(w.size for w in weights) - cut
        assert cut > 10 * whole


def latencies(measured: Measured, cut: str, pp: int, batch: int) -> list[float]:
    return [
        stage.row["median_s"]
        for stage in measured.stages
        if (stage.cut, stage.pp, stage.batch) == (cut, pp, batch)
    ]


@given(
    cost_s=st.fixed_dictionaries({part: st.sampled_from((1.0, 2.0, 5.0, 9.0)) for part in COST_S}),
    pp=st.integers(1, 6),
)
def test_stages_add_up_and_the_longest_balanced_one_is_the_shortest_possible(cost_s, pp):
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench()
        bench.install(patch)
        bench.cost_s = cost_s
        measured = bench.measure(MIXED, pps=(pp,))
    layers = [sum(cost_s[part] for part in MIXED.parts(layer)) for layer in range(7)]
    assert measured.layer_latency_s["m", 1] == layers
    cuts = itertools.combinations(range(1, 7), pp - 1)
    shortest = min(
        max(sum(layers[a:b]) for a, b in itertools.pairwise((0, *cut, 7))) for cut in cuts
    )
    for batch in (1, 4):
        balanced, even = (latencies(measured, cut, pp, batch) for cut in CUTS)
        assert len(balanced) == len(even) == pp
        assert sum(balanced) == sum(even) == batch * sum(layers)
        assert max(balanced) == batch * shortest <= max(even)


def test_every_span_is_run_as_often_as_asked_and_no_oftener(bench):
    measured = bench.measure(MIXED)
    spans = {(stage.begin, stage.end, stage.batch) for stage in measured.stages}
    spans |= {(layer, layer + 1, 1) for layer in (0, 1, 2, 6)}  # one of each kind, to balance by
    expected = sum(len(list(parts(*span[:2]))) for span in spans)
    assert len(bench.runs) == 4 * expected
    assert len(measured.stages) == 2 * len(CUTS) * (1 + 2 + 3)


def parts(begin: int, end: int):
    return itertools.chain.from_iterable(MIXED.parts(layer) for layer in range(begin, end))


def test_even_stages_have_equally_many_blocks_and_the_last_one_the_output(bench):
    measured = bench.measure(MIXED, pps=(4,))
    even = [stage for stage in measured.stages if (stage.cut, stage.batch) == ("even", 1)]
    assert [(stage.begin, stage.end) for stage in even] == [(0, 2), (2, 4), (4, 5), (5, 7)]


def test_killed_in_the_middle_it_goes_on_from_there(bench):
    whole = bench.measure(MIXED)
    runs, bench.runs = bench.runs, []
    known: dict = {}

    def keep(key, row):
        assert key not in known
        known[key] = row
        if len(known) % 5 == 0:
            raise KeyboardInterrupt

    for _ in range(100):
        try:
            again = bench.measure(MIXED, known=known, keep=keep)
            break
        except KeyboardInterrupt:
            pass
    assert sorted(bench.runs) == sorted(runs)
    assert len(known) > 15
    assert again.profile() == whole.profile()
    assert bench.measure(MIXED, known=known, keep=keep).stages == again.stages


@pytest.mark.parametrize(
    "change",
    [
        {"shape": dataclasses.replace(MIXED, vocabulary=64)},
        {"settings": MeasureSettings(warmup=1, repeats=4)},
        {"settings": MeasureSettings(warmup=1, repeats=3, dtype="bfloat16")},
        {"settings": MeasureSettings(warmup=1, repeats=3, memory_bytes=1e9)},
    ],
)
def test_what_was_measured_otherwise_is_not_believed(bench, change):
    known: dict = {}
    bench.measure(MIXED, keep=known.__setitem__)
    before = len(known)
    bench.measure(**{"shape": MIXED} | change, known=dict(known), keep=known.__setitem__)
    assert len(known) > before


def test_the_profile_has_what_was_measured_and_where(bench, tmp_path):
    measured = bench.measure(MIXED)
    profile = measured.profile("even")
    save_profile(tmp_path / "p.json", profile)
    again = load_profile(tmp_path / "p.json")
    assert again == profile and again.measured == profile.measured
    assert again.to_dict() == profile.to_dict()
    assert profile.configs("m") == tuple(ParallelConfig(1, pp) for pp in (1, 2, 3))
    assert profile.single_device_latency_s("m") == 0.5 + 3 * 2 + 3 * 5 + 3
    config = ParallelConfig(1, 2)
    assert profile.batch_sizes("m", config) == (1, 4)
    assert profile.stage_latency_s("m", config, 4).tolist() == [4 * 12.5, 4 * 12.0]
    assert profile.act_bytes("m", config, 4).tolist() == [4 * ACT_BYTES] * 2
    weights = [4 * sum(map(MIXED.num_weights, layers)) for layers in (range(3), range(3, 7))]
    assert profile.weight_bytes("m", config).tolist() == weights
    assert profile.measured.sequence == {"m": 4}
    assert profile.measured.dtype == "float32"
    assert profile.measured.software["jax"] == jax.__version__
    assert profile.measured.chip and profile.measured.date > "2026"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("chip", 1, "measured: chip: expected text, got 1"),
        ("sequence", {"m": 0}, "measured: sequence: m: expected tokens >= 1, got 0"),
        ("software", {}, "measured: software: expected an object that is not empty"),
        ("clock", "", "measured: unknown key 'clock'"),
    ],
)
def test_a_profile_that_lies_of_where_it_comes_from_is_refused(bench, field, value, expected):
    document = bench.measure(MIXED).profile().to_dict()
    document["measured"][field] = value
    with pytest.raises(ProfileError, match=expected):
        type(bench.measure(MIXED).profile()).from_dict(document)


def test_what_does_not_fit_is_named_and_the_rest_goes_on(bench):
    weights = [4 * MIXED.num_weights(layer) for layer in range(7)]
    limit = sum(weights) - 1
    measured = bench.measure(MIXED, settings=dataclasses.replace(QUICK, memory_bytes=limit))
    assert {(s.pp, s.batch) for s in measured.stages if s.row["misfit"]} == {(1, 1), (1, 4)}
    assert measured.misfits == [
        f"m (1,1,1), {cut}: does not fit from batch size 1 on; stage 0: "
        f"it needs {sum(weights) / GB:.3g} GiB of {limit / GB:.3g}"
        for cut in CUTS
    ]
    profile = measured.profile()
    assert profile.configs("m") == (ParallelConfig(1, 2), ParallelConfig(1, 3))
    # No device holds the model, so its SLO is derived from layers measured one by one.
    assert profile.single_device_latency_s("m") == 0.5 + 3 * 2 + 3 * 5 + 3


def test_activations_count_as_well(bench):
    limit = 4 * sum(map(MIXED.num_weights, range(7))) + 2 * ACT_BYTES
    measured = bench.measure(MIXED, settings=dataclasses.replace(QUICK, memory_bytes=limit))
    profile = measured.profile()
    assert profile.batch_sizes("m", ParallelConfig(1, 1)) == (1,)
    assert profile.batch_sizes("m", ParallelConfig(1, 2)) == (1, 4)


def test_running_out_of_memory_is_no_end_but_other_errors_are(bench):
    bench.fails_at["output", 4] = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"
    measured = bench.measure(MIXED)
    assert {s.batch for s in measured.stages if s.row["misfit"]} == {4}
    assert "from batch size 4 on; stage 2: it ran out of memory" in measured.misfits[-1]
    assert measured.profile().batch_sizes("m", ParallelConfig(1, 2)) == (1,)
    bench.fails_at["output", 4] = "INTERNAL: the device is gone"
    with pytest.raises(jax.errors.JaxRuntimeError, match="the device is gone"):
        bench.measure(MIXED)


def test_a_layer_that_does_not_fit_leaves_nothing_to_profile(bench):
    measured = bench.measure(MIXED, settings=dataclasses.replace(QUICK, memory_bytes=100.0))
    assert len(measured.misfits) == 3  # evenly cut, as the balance is not known
    assert not bench.runs
    with pytest.raises(ProfileError, match="nothing that was asked for fits the devices"):
        measured.profile()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ops": (1024,)}, "ops: 1024 operator-parallel devices are wanted, there .* 1; .*=1024"),
        ({"ops": (0,)}, "ops must be >= 1, got 0"),
        ({"ops": ()}, "ops is empty"),
        ({"pps": (7,)}, "pps: m has 6 blocks, too few for 7 stages"),
        ({"batches": (2, 4)}, "batches must have 1 among them"),
        ({"batches": (1, -2)}, "batches must be >= 1, got -2"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is(bench, options, expected):
    with pytest.raises(MeasureError, match=expected):
        bench.measure(MIXED, **options)
    assert not bench.runs


def test_shapes_that_devices_cannot_cut_are_told_by_name_and_field(bench, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [jax.devices()[0]] * 8)
    with pytest.raises(MeasureError, match="ops: m: heads = 4 is not divisible by op = 8"):
        bench.measure(MIXED, ops=(2, 8))


@pytest.mark.parametrize(
    "options", [{"repeats": 0}, {"warmup": -1}, {"memory_bytes": 0.0}, {"memory_bytes": np.inf}]
)
def test_nonsensical_settings_are_refused(options):
    with pytest.raises(MeasureError, match="must be"):
        MeasureSettings(**options)
