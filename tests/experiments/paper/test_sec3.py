"""Section 3: what is published of it, theory beside simulation, and figures from tables alone."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import run
from beta_jax import (
    Cluster,
    Group,
    ParallelConfig,
    Placement,
    Problem,
    Profile,
    ProfileError,
    Rules,
    load_profile,
    make_models,
    simulate,
    synthesize_many,
)
from beta_jax.analysis.statistics import paired_ratio
from beta_jax.profiles.cost_model import load_cost_model
from beta_jax.profiles.stages import balanced_cut, even_cut
from beta_jax.theory import queueing
from beta_jax.theory.placements import Theory
from configs import sec3
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3 import SECTION, costs, figures, pooling, two_models
from experiments.report import tables

from instances import make_profile

ROOT = Path(run.__file__).parent
ALONE, PAIR = ParallelConfig(1, 1), ParallelConfig(1, 2)
PROFILE = make_profile({"m": {ALONE: [0.4], PAIR: [0.2, 0.2]}})
NO_OVERHEADS = Rules(stage_overhead=0.0, request_overhead_s=0.0)
APART = Placement((Group(ALONE, (0,)), Group(ALONE, (1,))))
POOLED = Placement((Group(PAIR, (0, 1)),))
BOTH = Placement((Group(ALONE, (0, 1)), Group(ALONE, (0, 1))))


def execute(out_dir: Path, *arguments: str) -> int:
    return run.main(["run.py", "--out_dir", str(out_dir), *arguments], time.perf_counter())


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def problem(
    *, cv: float = 1.0, rate: float = 3.0, slo: float = math.inf, rules: Rules = NO_OVERHEADS
) -> Problem:
    models = make_models(
        ("m", "m"), PROFILE, slo_scale=slo / 0.4, total_rate_rps=rate, split=(1, 4), cv=cv
    )
    return Problem(models, Cluster(2), PROFILE, rules)


# The command.


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("sec3")
    assert execute(out_dir, "--config", "sec3:smoke") == 0
    return out_dir


def test_every_file_is_written(smoke):
    assert all((smoke / name).stat().st_size for name in SECTION.files)
    of_any_run = {"run.json", "timings.json", "log.txt", "report.html"}
    assert {path.name for path in smoke.iterdir()} == {*SECTION.files, *of_any_run}


def test_the_same_command_computes_nothing_again_and_writes_the_same_bytes(smoke, monkeypatch):
    monkeypatch.setattr(figures, "DRAWINGS", figures.DRAWINGS[-1:])
    contents = {name: (smoke / name).read_bytes() for name in SECTION.files}
    assert execute(smoke, "--config", "sec3:smoke") == 0
    assert {name: (smoke / name).read_bytes() for name in SECTION.files} == contents


def test_drawing_needs_the_tables_alone_and_not_jax(smoke, tmp_path):
    for name in ("rate.csv", "theory.csv", "theory_curves.csv"):
        shutil.copy(smoke / name, tmp_path)
    check = (
        "import sys; from pathlib import Path; from experiments.paper import sec3;"
        f"sec3.SECTION.draw(Path({str(tmp_path)!r}));"
        "print(*sorted({'jax', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
    for name in ("changing_rate_cv_slo_1.5.png", "queueing_theory.pdf"):
        assert (tmp_path / name).read_bytes() == (smoke / name).read_bytes()


def test_every_axis_has_a_label_and_curves_have_the_names_of_the_paper(smoke, monkeypatch):
    drawn = {}
    keep = lambda figure, stem: drawn.update({stem.name: figure}) or [stem]  # noqa: E731
    monkeypatch.setattr(figures.figures, "save", keep)
    figures.draw(smoke)
    assert set(drawn) == {stem for drawing in figures.DRAWINGS for stem in drawing.stems}
    for figure in drawn.values():
        *_, last = figure.axes
        assert last.get_xlabel() and (last.get_ylabel() or figure.get_supylabel())
    (legend,) = drawn["changing_rate_cv_slo_1"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["Model Parallelism", "Replication"]
    (line,) = [c for c in drawn["changing_rate_cv_slo_2"].axes[0].lines if c.get_marker() == "x"]
    assert list(line.get_xdata()) == [1.0]  # where theory has an answer


def test_tables_hold_what_is_swept(smoke):
    memory = [(row["panel"], row["policy"], float(row["x"])) for row in rows(smoke / "memory.csv")]
    own = [(policy, gib) for kind, policy, gib in memory if kind == "bert-2.6b"]
    assert own[:8] == [("sr-uniform", 5.5 * n) for n in range(1, 9)]
    assert own[8:] == [("mp-greedy-8", 7.0), ("mp-greedy-4", 12.0), ("mp-greedy-2", 22.0)]
    placed = {row["policy"]: row["placement"] for row in rows(smoke / "rate.csv")}
    assert placed == {"mp-greedy-8": "1x(1,1,8)", "sr-uniform": "8x(1,1,1)"}
    overheads = {row["pipeline_overhead"] for row in rows(smoke / "overhead.csv")}
    assert overheads == {"none", "1", "1.5"}


def test_utilisation_is_a_share_and_pooling_is_busy_for_as_long(smoke):
    busy_s = {}
    for policy in two_models.POLICIES:
        own = [r for r in rows(smoke / "two_models_utilisation.csv") if r["policy"] == policy]
        time_s = np.array([float(row["time_s"]) for row in own])
        share = np.array([float(row["utilisation"]) for row in own])
        assert time_s[0] == 0 and time_s[-1] == 40 and (np.diff(time_s) > 0)[:-1].all()
        assert share.min() == 0 and share.max() == 1
        busy_s[policy] = float(share[:-1] @ np.diff(time_s))
    assert busy_s["mp-search"] == pytest.approx(busy_s["sr-greedy"], rel=0.1)


def test_the_fixed_time_of_a_request_keeps_no_device_busy():
    shown = []
    for seconds in (0.0, 0.5):
        rules = Rules(request_overhead_s=seconds)
        config = dataclasses.replace(sec3.SMOKE, rules=rules)
        shown.append(two_models.run(config, Stopwatch(0.0))["two_models_utilisation"])
    assert shown[0] == shown[1]


def test_clean_leaves_nothing(smoke, tmp_path):
    assert execute(tmp_path / "out", "--config", "sec3:scaling") == 0
    assert execute(tmp_path / "out", "--config", "sec3", "--clean") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("groups", "option", "message"),
    [
        ("rate,slos", "--config.seed=1", "no panel group is called 'slos'; known: two_models"),
        ("theory", "--config.theory.values=2.0", "loads of two devices are inside (0, 2), got 2.0"),
        (
            "overhead",
            "--config.pipeline_overheads=0",
            "a pipeline overhead is > 0 and finite, got 0.0",
        ),
        ("scaling", "--config.model_type=bert-15b", "bert-15b"),
        ("theory", "--config.theory.values=", "the list of swept values is empty"),
        ("theory", "--config.theory.values=1.99", "all loads keep a device busy for more than 88%"),
        ("theory", "--config.theory.seeds=1", "a standard error needs >= 2 replications, got 1"),
        (
            "two_models",
            "--config.two_models.seeds=0",
            "seeds must be >= 1",
        ),
        (
            "memory",
            "--config.memory.duration_s=0",
            "duration_s > 0, got 1 and 0 s",
        ),
        ("", "--config.seed=1", "no panel groups; known: two_models"),
        (
            "two_models",
            "--config.two_models.rate_rps=0",
            "no request arrives in 500 s at 0 requests/s",
        ),
    ],
)
def test_bad_input_is_one_line(groups, option, message, tmp_path, capsys):
    arguments = ("--config", "sec3:smoke", f"--config.groups={groups}", option)
    assert execute(tmp_path, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_without_tables_there_is_nothing_to_plot(tmp_path):
    with pytest.raises(tables.ResultsError, match="no tables of section 3"):
        figures.draw(tmp_path)
    (tmp_path / "scaling.csv").write_text("model_type\nbert-2.6b\n")
    with pytest.raises(tables.ResultsError, match=r"scaling\.csv has no column strategy"):
        figures.draw(tmp_path)


# What the paper states, and theory.


def test_two_models_as_published(shared):
    """Times as fast: 1.3, 6.6 and 1.9 in the paper, with an overhead that it does not state."""
    config = dataclasses.replace(
        sec3.CONFIG,
        profile=str(shared / "data/profiles/v100_measured.json"),
        two_models=dataclasses.replace(sec3.CONFIG.two_models, seeds=12),
    )
    made = two_models.run(config, Stopwatch(0.0))["two_models"]
    assert {row["placement"] for row in made if row["policy"] == "mp-search"} == {"1x(1,1,2)"}
    off = {
        (row["case"][:5], row["case"][-3:], row["policy"]): row
        for row in made
        if row["overheads"] == "off"
    }
    for (case, traffic, policy), mean_s in {
        ("equal", "son", "sr-greedy"): 0.6824,
        ("equal", "son", "mp-search"): 0.5436,
        ("20 % ", "son", "sr-greedy"): 3.297,
        ("20 % ", "son", "mp-search"): 0.5436,
    }.items():
        row = off[case, traffic, policy]
        error = (row["latency_mean_s_high"] - row["latency_mean_s"]) / 2.201  # t of 11
        assert row["latency_mean_s_exact"] == pytest.approx(mean_s, rel=1e-3)
        assert abs(row["latency_mean_s"] - row["latency_mean_s_exact"]) < 4 * error
    assert off["equal", "son", "mp-search"]["ratio"] == pytest.approx(1.26, abs=0.02)
    assert off["equal", "V 3", "mp-search"]["ratio"] == pytest.approx(1.9, abs=0.1)
    hot = off["20 % ", "son", "mp-search"]
    assert 5 < hot["ratio_low"] < 6.065 < hot["ratio_high"] < 7.2
    assert hot["ratio_exact"] == pytest.approx(6.065, abs=1e-3)


def test_theory_is_drawn_through_what_is_simulated():
    sweep = dataclasses.replace(sec3.CONFIG.theory, values=(0.5, 1.25), seeds=8, duration_s=5e3)
    made = pooling.run(dataclasses.replace(sec3.CONFIG, theory=sweep), Stopwatch(0.0))
    assert len(made["theory"]) == 8
    assert all(abs(row["difference_in_se"]) < 4 for row in made["theory"])
    fine = {(row["curve"], row["load"]): row["value"] for row in made["theory_curves"]}
    for row in made["theory"]:
        assert fine[row["curve"], row["load"]] == pytest.approx(row["latency_exact"])


def test_theory_of_a_placement_is_what_is_simulated_with_overheads():
    case, placements = problem(rate=2.4, rules=Rules()), (APART, POOLED, BOTH)
    traffic = synthesize_many(case.models, seeds=range(8), duration_s=5e3)
    for placement in placements:
        sample = simulate(case, placement, traffic, warmup_s=100).latency_mean_s
        error = float(np.std(sample, ddof=1)) / 8**0.5
        exact = Theory(case, placement).latency_mean_s()
        assert abs(sample.mean() - exact) < 4 * error


def test_theory_answers_per_model_and_for_deadlines():
    theory = Theory(problem(), APART)
    assert theory.latency_mean_s() == pytest.approx(float(queueing.simple_latency_s(3, 0.4, 0.2)))
    within = [theory.latency_cdf([0.3, 0.4, 2.0], model) for model in (None, 0, 1)]
    assert within[0] == pytest.approx(0.2 * within[1] + 0.8 * within[2])
    assert [column[0] for column in within] == [0, 0, 0]
    assert within[1][1] == pytest.approx(1 - 0.6 * 0.4) and within[2][1] == pytest.approx(0.04)
    late = Theory(problem(rules=Rules(request_overhead_s=0.1)), POOLED)
    assert late.latency_cdf([late.latency_p99_s()])[0] == pytest.approx(0.99)
    assert Theory(problem(slo=0.8), POOLED).slo_attainment() == pytest.approx(0.953229144)
    assert Theory(problem(slo=0.3), POOLED).slo_attainment() == 0
    later = problem(slo=0.9, rules=Rules(stage_overhead=0.0, request_overhead_s=0.1))
    assert Theory(later, POOLED).slo_attainment() == pytest.approx(0.953229144)


@pytest.mark.parametrize(
    ("case", "placement"),
    [
        (problem(cv=3.0), POOLED),  # not Poisson
        (problem(rate=5.1), POOLED),  # no steady state
        (problem(), Placement((Group(ALONE, (0, 1)), Group(ALONE, (1,))))),  # shared in part
        (problem(), Placement((Group(ALONE, (0, 1)), Group(PAIR, (0, 1))))),  # unequal servers
        (problem(), Placement((Group(ALONE, (0,)),))),  # a model without a host
        (problem(slo=2.0), BOTH),  # several servers and deadlines
        (problem(rules=Rules("round_robin", 0.0, 0.0)), BOTH),  # not the first that is free
    ],
)
def test_where_theory_has_no_answer_it_gives_none(case, placement):
    if placement.num_devices > 2:
        case = dataclasses.replace(case, cluster=Cluster(3))
    theory = Theory(case, placement)
    assert math.isnan(theory.latency_mean_s()) and math.isnan(theory.latency_p99_s())
    assert math.isnan(theory.slo_attainment())
    assert np.isnan(theory.latency_cdf([1.0])).all()


# Costs.


@pytest.mark.parametrize("measured", [False, True], ids=["calibrated", "measured"])
def test_parts_add_up_to_the_latency(measured, request):
    path = ROOT / sec3.CONFIG.profile
    if measured:
        path = request.getfixturevalue("shared") / "data/profiles/v100_measured.json"
    profile = load_profile(path)
    parts: dict[tuple[str, int], float] = {}
    for row in costs.decomposition(profile, "bert-2.6b"):
        key = row["split"], row["devices"]
        parts[key] = parts.get(key, 0.0) + row["seconds"]
        assert row["seconds"] >= 0
    alone_s = profile.single_device_latency_s("bert-2.6b")
    for devices in costs.DEVICES:
        stages_s = profile.stage_latency_s("bert-2.6b", ParallelConfig(1, devices))
        whole_s = max(devices * stages_s.max(), alone_s, stages_s.sum())
        assert parts[costs.PIPELINE, devices] == pytest.approx(whole_s)
        (operator_s,) = profile.stage_latency_s("bert-2.6b", ParallelConfig(devices, 1))
        assert parts[costs.OPERATOR, devices] == pytest.approx(operator_s)


def test_scaling_is_of_latency_throughput_and_memory():
    profile = load_profile(ROOT / sec3.CONFIG.profile)
    found = {(r["strategy"], r["devices"]): r for r in costs.scaling(profile, "bert-2.6b")}
    assert len({found[strategy, 1]["latency_s"] for strategy, _ in found}) == 1
    assert found[costs.REPLICATION, 8]["weights_gib"] == pytest.approx(8 * 5.18, rel=0.001)
    assert found[costs.PIPELINE, 8]["weights_gib"] == pytest.approx(5.18, rel=0.001)
    assert found[costs.OPERATOR, 8]["weights_gib"] == pytest.approx(5.18, rel=0.001)
    assert found[costs.REPLICATION, 8]["throughput_rps"] == pytest.approx(8 / 0.238, rel=0.01)
    assert found[costs.OPERATOR, 8]["latency_s"] < found[costs.PIPELINE, 8]["latency_s"]
    assert found[costs.OPERATOR, 8]["throughput_rps"] < found[costs.PIPELINE, 8]["throughput_rps"]


def test_a_balanced_cut_wastes_less():
    uneven = {
        (row["model_type"], row["cut"], row["devices"]): row["seconds"]
        for row in costs.partition(load_cost_model("v100"), costs.PARTITIONED)
        if row["part"] == "uneven partition"
    }
    for kind in costs.PARTITIONED:
        assert 0 <= uneven[kind, "balanced", 2] <= uneven[kind, "even", 2]
        for devices in (4, 8):
            assert 0 <= uneven[kind, "balanced", devices] < uneven[kind, "even", devices]


@given(
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=8).flatmap(
        lambda layers: st.tuples(st.just(layers), st.integers(1, len(layers)))
    )
)
def test_no_cut_has_a_shorter_longest_stage_than_the_balanced_one(case):
    layers, num_stages = case
    cut = balanced_cut(layers, num_stages)
    assert len(cut) == num_stages and sum(cut) == len(layers) and min(cut) >= 1
    best = math.inf
    for inner in itertools.combinations(range(1, len(layers)), num_stages - 1):
        bounds = (0, *inner, len(layers))
        best = min(best, max(sum(layers[a:b]) for a, b in itertools.pairwise(bounds)))
    stages = np.split(layers, np.cumsum(cut)[:-1])
    assert max(stage.sum() for stage in stages) == pytest.approx(best)
    even = even_cut(len(layers), num_stages)
    assert sum(even) == len(layers) and max(even) - min(even) <= 1


@pytest.mark.parametrize("num_stages", [0, 4])
def test_too_few_layers_cannot_be_cut(num_stages):
    for cut in (lambda: even_cut(3, num_stages), lambda: balanced_cut([1.0] * 3, num_stages)):
        with pytest.raises(ValueError, match=f"3 layers cannot be cut into {num_stages} stages"):
            cut()


def test_pipelines_of_a_given_overhead():
    profile = load_profile(ROOT / "data/profiles/v100.json")
    changed = profile.with_even_pipelines(1.2)
    for pp in (2, 8):
        stages = changed.stage_latency_s("bert-2.6b", ParallelConfig(1, pp), batch=4)
        alone = profile.stage_latency_s("bert-2.6b", ALONE, batch=4)
        assert stages == pytest.approx([1.2 * alone[0] / pp] * pp)
    for config in (ALONE, ParallelConfig(2, 1), ParallelConfig(2, 2)):
        before = profile.stage_latency_s("bert-2.6b", config).tolist()
        assert changed.stage_latency_s("bert-2.6b", config).tolist() == before
    large = "bert-103.5b", ParallelConfig(1, 16)  # has no single-device latency to share out
    assert changed.stage_latency_s(*large).tolist() == profile.stage_latency_s(*large).tolist()
    assert isinstance(changed, Profile) and changed != profile


@pytest.mark.parametrize("overhead", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_overhead_is_refused(overhead):
    with pytest.raises(ProfileError, match="a pipeline overhead is > 0 and finite"):
        PROFILE.with_even_pipelines(overhead)


# Ratios.


def test_a_ratio_has_no_error_where_pairs_agree_and_covers_as_often_as_it_claims():
    assert paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx((2, 2, 2, 3))
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        shared = random.exponential(1.0, 16)
        a = 3 * (2 + shared + random.normal(0, 0.3, 16))
        interval = paired_ratio(a, 2 + shared)
        covered += interval.low <= 3 <= interval.high
    assert abs(covered / 400 - 0.95) < 4 * (0.95 * 0.05 / 400) ** 0.5


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0], [1.0, 2.0], "needs pairs"),
        ([1.0, 2.0], [1.0, 0.0], "one sign"),
        ([1.0, 2.0], [1.0, -1.0], "one sign"),
        ([], [], "at least one value"),
    ],
)
def test_a_ratio_of_what_is_no_pair_or_may_be_zero_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_ratio(a, b)
