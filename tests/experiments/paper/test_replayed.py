"""Replayed traces as traffic: what a scenario is made into, end-to-end and robustness figures."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import run
from beta_jax import traces
from beta_jax.search import find_policy
from configs import sec6_2 as sec6_2_config
from configs import sec6_3 as sec6_3_config
from configs import sec6_4 as sec6_4_config
from experiments.engine import compute, fields, points, schedule
from experiments.engine.executor import Embedded
from experiments.engine.inputs import InputMaker, seeds_apart, train_and_test
from experiments.engine.runner import run_points
from experiments.engine.scenarios import Replayed, scenario_of
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch
from experiments.paper import sec6_2, sec6_4
from experiments.report import figures, headline, tables
from experiments.report.results import Results

HEADER = ["HashOwner", "HashApp", "HashFunction", "Trigger"]
MINUTES = 60


def write_day(folder: Path, day: int = 1, seed: int = 0, functions: int = 60) -> Path:
    """A day file of the published format, an hour long, with some requests for every function."""
    folder.mkdir(exist_ok=True)
    counts = np.random.default_rng(seed).integers(0, 20, (functions, MINUTES))
    with open(folder / f"invocations_per_function_md.anon.d{day:02}.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*HEADER, *range(1, MINUTES + 1)])
        for number, row in enumerate(counts.tolist()):
            rows.writerow(["owner", "app", f"function-{number}", "http", *row])
    return folder


@pytest.fixture(scope="module")
def trace(tmp_path_factory) -> Path:
    return write_day(tmp_path_factory.mktemp("traces") / "real_day")


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """Numbers of results of every block that is computed."""
    sizes: list[int] = []
    original = compute.compute_block

    def count(block, *arguments):
        sizes.append(len(block))
        return original(block, *arguments)

    monkeypatch.setattr(compute, "compute_block", count)
    return sizes


def call(folder: Path, *arguments: str) -> int:
    return run.main(["run.py", f"--out_dir={folder}", *arguments], start=time.perf_counter())


def column(trace: Path | str, **changes: object) -> list[str]:
    """The first column of the end-to-end figure, small."""
    fields = {
        "maf1": trace,
        "maf1_train": "0.0.0-0.0.3",
        "maf1_test": "0.0.0-0.0.3",
        "policies": "sr-greedy",
        "num_devices": "3,4",
        "rate_scale": "",
        "cv_scale": "1,2",
        "slo_scale": "",
    } | changes
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=sec6_2:S1@MAF1", *given]


def scenario(trace: Path | str = "maf1_like", **changes: object) -> Replayed:
    base = sec6_2.points(dataclasses.replace(sec6_2_config.CONFIG, maf1=str(trace)))[0].scenario
    assert isinstance(base, Replayed)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


# What a scenario is made into.


def test_equal_traffic_is_the_same_object_and_training_on_the_test_is_seen(trace):
    short = {"train": "0.0.0-0.0.3", "test": "0.0.0-0.0.3"}
    loose, tight = (scenario(trace, slo_scale=slo, **short) for slo in (5.0, 1.0))
    other = scenario(trace, train="0.0.3-0.0.6", test="0.0.0-0.0.3")
    made = InputMaker().workloads([loose, tight, other])
    assert made[loose].train is made[loose].test is made[tight].train is made[other].test
    assert made[other].train is not made[other].test
    assert loose.trained_on_test and not other.trained_on_test


@pytest.mark.parametrize("source", ["given", "maf1_like"])
def test_traffic_has_the_rate_of_the_full_trace_and_models_know_it(source, trace):
    given = scenario(trace if source == "given" else source, cv_scale=1.0)
    inputs = InputMaker().workloads([given])[given]
    assert inputs.problem.cluster.num_devices == given.num_devices
    rates = [model.rate_rps for model in inputs.problem.models]
    assert sum(rates) == pytest.approx(2e-3 * 10_000)
    num_train, num_test = InputMaker().num_requests(given)
    assert num_train == num_test == pytest.approx(3600 * sum(rates))
    assert len(inputs.test) == pytest.approx(num_test, rel=0.03)
    counts = np.bincount(inputs.test.model, minlength=48)
    assert np.corrcoef(counts, rates)[0, 1] > 0.99


def test_training_may_play_the_beginning_of_every_window(trace):
    short = scenario(trace, train="0.0.0-0.0.3", test="0.0.0-0.0.3", train_window_s=15.0)
    made = InputMaker().workloads([short])[short]
    assert short.trained_on_test
    start = made.test.arrival_s < 15
    np.testing.assert_array_equal(made.test.arrival_s[start], made.train.arrival_s[: start.sum()])
    assert 15 < made.train.arrival_s[-1] <= 45
    assert InputMaker().num_requests(short)[0] == InputMaker().num_requests(short)[1] / 4


def test_replications_of_legacy_traffic_share_no_stream():
    legacy = scenario()
    assert seeds_apart(legacy, 48) == 48 * 60
    assert seeds_apart(dataclasses.replace(legacy, rng="jax"), 48) == 1
    with pytest.raises(ValueError, match="48 models and 60 windows must be equal, or 2880 apart"):
        seeds_apart(dataclasses.replace(legacy, test_seed=100), 48)
    second = legacy.replication(1, seeds_apart(legacy, 48))
    (train, train_seed), _ = train_and_test(second, InputMaker().problem(second))
    assert train_seed == 2880 and train.window_s == 60


# Days that a trace lacks.


def test_generated_days_stand_in_for_the_days_that_are_not_there(trace):
    given = traces.open_trace(write_day(trace.parent / "third_day", day=3))
    full = traces.complete(given)
    assert (full.start_s, full.end_s) == (0, 14 * 86400)
    assert full.functions == given.functions
    own, kept = (t.entries(given.start_s, given.end_s, 60.0) for t in (given, full))
    for a, b in zip(own, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    generated = traces.maf1_like(60)
    for first, last in ((0.0, 2 * 86400.0), (given.end_s, 14 * 86400.0)):
        here, there = (t.entries(first, last, 60.0) for t in (full, generated))
        np.testing.assert_array_equal(np.sort(here.requests), np.sort(there.requests))


def test_who_is_popular_stays_popular_on_generated_days(tmp_path):
    folder = write_day(tmp_path / "day")
    given = traces.open_trace(folder)
    full = traces.complete(given)
    own = given.entries(0.0, 3600.0, 60.0)
    other = traces.maf1_like(60).entries(0.0, 14 * 86400.0, 60.0)
    later = full.entries(3600.0, 14 * 86400.0, 60.0)
    first, expected, found = (
        np.bincount(e.function, e.requests, minlength=60) for e in (own, other, later)
    )
    rank = np.argsort(np.argsort(first, kind="stable"))
    assert np.corrcoef(np.sort(expected)[rank], found)[0, 1] > 0.99


def test_whole_traces_need_no_generated_day_and_arrivals_cannot_have_one():
    whole = traces.maf1_like(10)
    assert traces.complete(whole) is whole
    with pytest.raises(traces.TraceError, match="counts per minute"):
        traces.complete(traces.maf2_like(10))


def test_a_trace_is_known_by_its_files_or_by_the_name_of_what_generates_it(trace, tmp_path):
    copy = shutil.copytree(trace, tmp_path / "copy")
    assert traces.fingerprint(copy) == traces.fingerprint(trace)
    file = next(file for file in copy.iterdir())
    file.write_bytes(file.read_bytes() + b"\n")
    assert traces.fingerprint(copy) != traces.fingerprint(trace)
    assert traces.fingerprint("maf1_like") != traces.fingerprint("maf2_like")
    with pytest.raises(traces.TraceError, match="no_such"):
        traces.fingerprint("no_such")


# The end-to-end figure.


def test_the_points_are_those_of_the_paper():
    found = sec6_2.points(sec6_2_config.CONFIG)
    assert len({point.panel for point in found}) == 6 * 4
    own = [p for p in found if p.panel.startswith("S1@MAF1")]
    assert len({(p.policy, p.scenario) for p in own}) == 3 * (6 + 7 + 6 + 7)  # the base point once
    for policy in {point.policy for point in found}:
        find_policy(policy)
    by_policy = {(p.panel.split()[0], figures.display_name(p.policy)): p.policy for p in found}
    assert by_policy["S3@MAF2", "Beta"] == "mp-search-sep"
    assert by_policy["S2@MAF1", "Beta"] == "mp-search"
    assert by_policy["S2@MAF2", "Clockwork++"] == "sr-replace-21600"
    assert {len(p.scenario.model_types) for p in found} == {48, 72}
    seen = [p.scenario for p in found if p.policy.startswith("sr-replace")]
    assert all(s.train == s.test and s.train_window_s is None for s in seen)


@pytest.mark.slow
def test_one_column_runs_on_a_given_trace_and_says_so(trace, tmp_path, capsys, computed):
    assert call(tmp_path, *column(trace)) == 0
    assert f"traces: {trace}\n" in capsys.readouterr().out
    rows = read(tmp_path, "table.csv")
    assert {row["panel"] for row in rows} == {"S1@MAF1 num_devices", "S1@MAF1 cv_scale"}
    assert {row["trace"] for row in rows} == {str(trace)}
    assert all(0 <= float(row["slo_attainment"]) <= 1 for row in rows)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"goodput_vs_num_devices.png", "goodput_vs_cv_scale.png"}
    rows = tables.read_csv(tmp_path / "table.csv", figures.COLUMNS)
    swept = [row for row in rows if row["x_name"] == "cv_scale"]
    figure = sec6_2.EXPERIMENT.figure(swept)
    assert str(trace) in figure.get_supxlabel()
    assert [axes.get_title() for axes in figure.axes] == ["S1@MAF1"]
    # The same again computes nothing, another trace everything, whatever the folders are called.
    assert sum(computed) == 4
    before = (tmp_path / "table.csv").read_bytes(), (tmp_path / headline.FILE).read_bytes()
    assert call(tmp_path, *column(trace)) == 0
    assert sum(computed) == 4
    assert before == (
        (tmp_path / "table.csv").read_bytes(),
        (tmp_path / headline.FILE).read_bytes(),
    )
    moved = shutil.copytree(trace, tmp_path / "moved")
    assert call(tmp_path, *column(moved)) == 0
    assert sum(computed) == 4
    write_day(moved, seed=1)
    assert call(tmp_path, *column(moved)) == 0
    assert sum(computed) == 8
    inputs = json.loads((tmp_path / "run.json").read_text())["inputs_sha256"]
    assert str(moved) in inputs
    assert call(tmp_path, *column(moved), "--clean") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"moved"}


def test_blocks_of_any_size_make_the_same_tables(trace, tmp_path, monkeypatch, computed):
    assert call(tmp_path / "one", *column(trace)) == 0
    for name, value in (("FIRST_BLOCK", 1), ("BLOCK_S", 0.0), ("SHARED_BLOCK_S", 0.0)):
        monkeypatch.setattr(schedule, name, value)
    assert call(tmp_path / "many", *column(trace)) == 0
    assert len(computed) == 1 + 4
    for name in ("table.csv", "headline.csv", "placements.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"columns": "S4@MAF1"}, "unknown column 'S4@MAF1'; there are S1@MAF1, "),
        ({"maf1": "no_such_trace"}, "no_such_trace"),
        ({"maf1_test": "0.0.0"}, "time '' must be day.hour.minute"),
        ({"maf1_test": "0.3.0-0.4.0"}, "outside the trace"),
        ({"maf1_window_s": "0"}, "window_s must be > 0"),
        ({"maf1_train_window_s": "-1"}, "train_window_s must be > 0"),
        ({"num_devices": "", "cv_scale": ""}, "no points"),
    ],
)
def test_what_cannot_be_replayed_ends_in_one_clear_line(change, expected, trace, tmp_path, capsys):
    assert call(tmp_path, *column(trace, **change)) == 1
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_a_trace_says_who_sends_what_so_models_may_not(trace, tmp_path):
    models = tmp_path / "models.csv"
    models.write_text("type,rate_share\nbert-1.3b,1\n")
    with pytest.raises(ValueError, match="leave rate_share out"):
        InputMaker().problem(scenario(trace, models=str(models)))


# The robustness figure.


@pytest.mark.slow
def test_pairs_of_slices_are_averaged_and_clockwork_sees_the_test(tmp_path, capsys):
    trace = write_day(tmp_path / "day", functions=600)
    arguments = ["--config=sec6_4:smoke", f"--config.trace={trace}", "--config.num_devices=4"]
    arguments += [
        "--config.trains=5.8.0-5.8.3,0.0.0-0.0.3",
        "--config.tests=0.0.3-0.0.6,7.1.0-7.1.3",
    ]
    arguments += ["--config.policies=sr-greedy,sr-replace-120"]
    assert call(tmp_path, *arguments) == 0
    assert "means over 2 pairs of slices" in capsys.readouterr().out
    rows = read(tmp_path, "table.csv")
    assert len(rows) == 4
    for row in rows:
        clockwork = row["policy"] == "sr-replace-120"
        assert (row["train"] == row["test"]) == clockwork == (row["trained_on_test"] == "True")
    figure = sec6_4.EXPERIMENT.figure(tables.read_csv(tmp_path / "table.csv", figures.COLUMNS))
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    for policy in ("sr-greedy", "sr-replace-120"):
        own = [100 * float(row["slo_attainment"]) for row in rows if row["policy"] == policy]
        assert list(drawn[figures.display_name(policy)]) == [pytest.approx(np.mean(own))]
    note = figure.get_supxlabel().replace("\n", " ")
    assert "Clockwork++ trained on the test traffic" in note
    assert "means over 2 pairs of slices" in note and "days that it lacks are generated" in note


def test_pairs_are_not_told_apart_when_policies_are():
    """Two pairs that nothing but chance tells apart: one policy is decided all the same."""
    base = sec6_3_config.CONFIG
    pairs = [
        dataclasses.replace(
            scenario_of(base),
            **{"model_types": ("bert-1.3b",) * 2, "num_devices": 1, "duration_s": 60.0},
            **{"rng": "jax", "train_seed": seed, "test_seed": seed},
        )
        for seed in (0, 1000)
    ]
    places = [points.Point("", "cv", 4.0, "sr-uniform", pair) for pair in pairs]
    plan = points.Replications(seeds=16, until_decided=0.0)
    found = Results(run_points(places, plan, Store(None), Stopwatch(0.0), Embedded()), plan)
    assert len(found.rows) == 2 * 4
    assert [row["seeds"] for row in found.intervals()] == [4]


def test_the_pairs_are_those_that_numpys_seed_1_draws():
    np_random = np.random.RandomState(1)
    days_and_hours = [np_random.randint(0, high, 3).tolist() for high in (14, 24, 14, 24)]
    drawn = [
        [f"{day}.{hour}.0-{day}.{hour + 1}.0" for day, hour in zip(*part, strict=True)]
        for part in (days_and_hours[:2], days_and_hours[2:])
    ]
    given = sec6_4_config.CONFIG
    assert [list(given.trains), list(given.tests)] == drawn


def test_a_slice_without_its_pair_is_refused():
    changed = fields.replace(sec6_4_config.CONFIG, {"tests": ["0.0.0-0.1.0"]})
    with pytest.raises(ValueError, match="3 and 1 slices given"):
        sec6_4.points(changed)


@pytest.mark.parametrize(
    ("option", "expected"),
    (
        ("maf1=maf3_like", "maf3_like: No such file or folder.*maf1_like and maf2_like.*fetch"),
        ("maf1=", "the name of a file or folder is empty"),
        ("profile=", "the name of a file or folder is empty"),
    ),
)
def test_a_trace_or_profile_that_is_not_there_is_an_error(option, expected, tmp_path, capsys):
    arguments = ["run.py", "--config=sec6_2:smoke", f"--config.{option}", f"--out_dir={tmp_path}"]
    assert run.main(arguments, start=time.perf_counter()) == 1
    assert re.search(expected, capsys.readouterr().err)
