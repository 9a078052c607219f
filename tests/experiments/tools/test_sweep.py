"""Sweeps of the user's own, replications, sequential stopping, forecasts, results in a notebook."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import experiments
import run
from beta_jax.analysis.statistics import mean_interval
from configs import sec6_3 as sec6_3_config
from configs import sweep as sweep_config
from experiments.engine import compute, fields, forecast, runner, schedule
from experiments.engine.executor import Done
from experiments.engine.inputs import InputMaker
from experiments.engine.model_files import ModelFileError, ModelSpec, read_models
from experiments.engine.points import Case
from experiments.engine.scenarios import scenario_of
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch
from experiments.tools import sweep

ROOT = Path(run.__file__).parent
SMALL = {"durations_s": [60], "num_models": [3], "num_devices": [2], "rates": [4], "seeds": 1}
BASE = scenario_of(sec6_3_config.CONFIG)
RECORD: Any = {"num_simulations": 1}


def configure(**changes: Any) -> sweep.Config:
    return fields.replace(sweep_config.CONFIG, changes)


def small(**changes: Any) -> experiments.Results:
    return experiments.run("sweep", **SMALL | changes)


# Axes.


def test_a_grid_has_a_point_for_every_combination_and_policy():
    found = sweep.points(configure(num_devices=[8, 16, 32], rates=[10, 20], cvs=[4]))
    assert len(found) == len(set(found)) == 3 * 2 * 2
    combinations = {(p.scenario.num_devices, p.scenario.rate_rps, p.policy) for p in found}
    policies = sweep_config.CONFIG.policies
    assert combinations == {*itertools.product((8, 16, 32), (10.0, 20.0), policies)}
    assert {(p.x_name, p.panel) for p in found} == {
        ("num_devices", "rates=10"),
        ("num_devices", "rates=20"),
    }
    assert all(p.x == p.scenario.num_devices for p in found)


@pytest.mark.parametrize("axis", sweep.FIELDS)
def test_any_axis_can_be_a_list(axis, tmp_path):
    pools = tmp_path / "one.csv", tmp_path / "two.csv"
    for number, file in enumerate(pools, 1):
        file.write_text(f"name,num_devices,profile\nv100,{number},data/profiles/v100.json\n")
    text = {
        "pools": tuple(map(str, pools)),
        "splits": ("uniform", "power_law"),
        "processes": ("gamma", "poisson"),
        "profile": ("data/profiles/v100.json", "other.json"),
    }
    values = text.get(axis, (2, 3))
    fixed = {name: getattr(sweep_config.CONFIG, name)[:1] for name in sweep.FIELDS if name != axis}
    found = sweep.points(configure(**fixed | {axis: values, "policies": ["mp-search"]}))
    assert len(found) == 2
    if axis == "num_models":
        assert [len(p.scenario.model_types) for p in found] == [2, 3]
    else:
        assert [getattr(p.scenario, sweep.FIELDS[axis]) for p in found] == list(values)
    panels = {p.panel for p in found}
    assert len(panels) == (2 if axis in sweep.TEXT_AXES else 1)


def test_zipped_axes_go_together():
    found = sweep.points(
        configure(combine="zip", num_devices=[8, 16, 32], rates=[10, 20, 20], cvs=[3])
    )
    assert [(p.x, p.scenario.num_devices, p.scenario.rate_rps) for p in found[::2]] == [
        (8, 8, 10.0),
        (16, 16, 20.0),
        (32, 32, 20.0),
    ]
    assert len({p.panel for p in found}) == 1


def test_types_take_turns():
    found = sweep.points(configure(model_types=["a", "b"], num_models=[5]))
    assert found[0].scenario.model_types == ("a", "b", "a", "b", "a")
    found = sweep.points(configure(model_types=["a", "b"], num_models=[]))
    assert found[0].scenario.model_types == ("a", "b")


def test_a_value_given_twice_is_not_taken_for_a_replication():
    assert len(sweep.points(configure(num_devices=[8, 8], rates=[4]))) == 2
    rows = small(rates=[4, 4]).rows
    assert len(rows) == 2


BAD_SWEEPS = [
    ({"rates": []}, "rates is empty"),
    ({"model_types": [], "num_models": []}, "which models"),
    ({"combine": "zip", "num_devices": [1, 2], "rates": [1, 2, 3]}, "num_devices 2, rates 3"),
    ({"combine": "zip", "num_devices": [2, 2], "rates": [3, 3]}, "distinct"),
    ({"x": "splits"}, "x cannot be 'splits'"),
    ({"models": "{models}", "num_models": [1, 2]}, "num_models cannot be swept"),
    ({"models": "{models}", "slo_scales": [1, 2]}, "slo_scales cannot be swept"),
    ({"models": "{models}", "splits": ["uniform", "power_law"]}, "splits cannot be swept"),
]


@pytest.mark.parametrize(("changes", "expected"), BAD_SWEEPS)
def test_axes_that_make_no_sweep_are_refused(changes, expected, tmp_path):
    models = tmp_path / "models.csv"
    models.write_text("type,rate_share,slo_s\nbert-1.3b,1,1\nbert-1.3b,2,1\n")
    given = {k: str(models) if v == "{models}" else v for k, v in changes.items()}
    with pytest.raises(sweep.SweepError, match=expected):
        sweep.points(configure(**given))


def test_the_command_of_the_help_text_makes_tables_and_figures(tmp_path, capsys):
    folder = tmp_path / "out"
    argv = ["run.py", "--config", "sweep", "--config.num_devices=2,4", "--config.rates=2,4"]
    argv += ["--config.policies=sr-greedy,mp-search", "--config.profile=data/profiles/v100.json"]
    argv += ["--config.durations_s=60", "--config.seeds=2", f"--out_dir={folder}"]
    assert run.main(argv, 0.0) == 0
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2
    assert {row["trained_on_test"] for row in rows} == {"False"}
    for name in ("attainment.pdf", "attainment.png", "latency.pdf", "latency.png"):
        assert (folder / name).stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "+-" in printed and "mp-search" in printed
    assert "\nIn figures SR is sr-greedy, Beta is mp-search.\n" in printed


def test_models_left_out_are_a_line_for_a_policy(tmp_path, capsys):
    results = small(num_devices=[1, 2], num_models=[6], memory_gib=[5], policies=["sr-greedy"])
    ((first, second),) = results.warnings()
    results.report()
    assert capsys.readouterr().err == f"warning: {first} (1 more like it: placements.json)\n"
    for text, number in ((first, 5), (second, 4)):
        assert text.startswith(f"sr-greedy: no replica of {number} of 6 models: ")


# Files of models.


CSV = "type,name,rate_share,slo_s,slo_scale\nbert-1.3b,chat,3,,\nbert-2.6b,code,1,0.5,\n"
JSON = [
    {"type": "bert-1.3b", "name": "chat", "rate_share": 3},
    {"type": "bert-2.6b", "name": "code", "rate_share": 1, "slo_s": 0.5},
]


@pytest.mark.parametrize(("name", "content"), [("m.csv", CSV), ("m.json", json.dumps(JSON))])
def test_models_come_with_types_names_shares_and_slos(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    assert read_models(path) == (
        ModelSpec("bert-1.3b", "chat", 3.0),
        ModelSpec("bert-2.6b", "code", 1.0, slo_s=0.5),
    )
    (point, _) = sweep.points(configure(**SMALL | {"models": str(path), "rates": [8]}))
    problem = InputMaker().problem(point.scenario)
    chat, code = problem.models
    assert (chat.name, chat.type, chat.rate_rps) == ("chat", "bert-1.3b", 6.0)
    assert chat.slo_s == 5 * problem.profile.single_device_latency_s("bert-1.3b")
    assert (code.name, code.rate_rps, code.slo_s) == ("code", 2.0, 0.5)


def test_a_models_own_slo_scale_stands_while_that_of_the_others_is_swept(tmp_path):
    path = tmp_path / "models.csv"
    path.write_text("type,slo_scale\nbert-1.3b,3\nbert-1.3b,\n")
    found = sweep.points(configure(**SMALL | {"models": str(path), "slo_scales": [2, 4]}))
    slos = [[m.slo_s for m in InputMaker().problem(p.scenario).models] for p in found[::2]]
    assert slos[0][0] == slos[1][0] == pytest.approx(1.5 * slos[0][1])
    assert slos[1][1] == pytest.approx(2 * slos[0][1])


def test_models_of_a_file_are_served(tmp_path):
    path = tmp_path / "models.csv"
    path.write_text("type,rate_share\nbert-1.3b,1\nbert-2.6b,0\n")
    results = small(models=str(path), num_devices=[2], policies=["sr-greedy"])
    (row,) = results.rows
    assert row["models"] == str(path) and row["slo_attainment"] > 0.5


BAD_FILES = [
    ("m.csv", "", "no models"),
    ("m.csv", "type\n", "no models"),
    ("m.csv", "kind\nbert\n", "model 1: its columns must be among type, name"),
    ("m.csv", "type,name\n,a\n", "model 1 has no type"),
    ("m.csv", "type,slo_s,slo_scale\na,1,1\n", "model 1 has both"),
    ("m.csv", "type,slo_s\na,1\nb,soon\n", "model 2: slo_s is 'soon', not a number"),
    ("m.csv", "type,rate_share\na,1\nb,\n", "model 2 has no rate_share"),
    ("m.csv", "type\na,b\n", "model 1: its columns"),
    ("m.json", "{", "m.json: "),
    ("m.json", '{"type": "a"}', "no models"),
    ("m.json", '["a"]', "model 1: its columns"),
    ("m.json", "[" * 20_000 + "]" * 20_000, "m.json: "),
    ("m.json", f'[{{"type": "a", "slo_s": 1{"0" * 400}}}]', "model 1: slo_s is 10+, not a number"),
    ("m.csv", "type\n" + "a" * 200_000, "m.csv: field larger than field limit"),
    ("missing.csv", None, "No such file"),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD_FILES)
def test_a_bad_file_of_models_is_named_with_what_is_wrong(name, content, expected, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelFileError, match=expected):
        read_models(tmp_path / name)


# Replications.


@given(
    train=st.integers(0, 50),
    test=st.integers(0, 50),
    apart=st.integers(1, 20),
    indices=st.lists(st.integers(0, 30), min_size=2, max_size=2, unique=True),
)
def test_replications_never_share_a_seed(train, test, apart, indices):
    scenario = dataclasses.replace(BASE, train_seed=train, test_seed=test)
    first, second = (scenario.replication(index, apart) for index in indices)
    for a, b in itertools.product(
        (first.train_seed, first.test_seed), (second.train_seed, second.test_seed)
    ):
        assert abs(a - b) >= apart
    assert first.trained_on_test == (train == test)
    assert scenario.replication(0, apart) == scenario


def test_policies_and_slos_meet_the_same_traffic_and_replications_others():
    results = small(seeds=4, rng="legacy", test_seed=3, slo_scales=[2, 5])
    requests: dict[int, set[int]] = {}
    for row in results.rows:
        requests.setdefault(row["replication"], set()).add(row["num_requests"])
    assert all(len(numbers) == 1 for numbers in requests.values())
    assert len(set.union(*requests.values())) > 1
    seeds = {(row["train_seed"], row["test_seed"]) for row in results.rows}
    assert seeds == {("0", "3"), ("6", "9"), ("12", "15"), ("18", "21")}


def test_more_seeds_leave_the_first_ones_as_they_were():
    few, many = small(seeds=2).rows, small(seeds=3).rows
    assert few == [row for row in many if row["replication"] < 2]


def test_intervals_and_differences_are_those_of_the_rows():
    results = small(seeds=6)
    values = {
        policy: [r["slo_attainment"] for r in results.rows if r["policy"] == policy]
        for policy in ("sr-greedy", "mp-search")
    }
    for row in results.intervals():
        expected = mean_interval(values[row["policy"]])
        assert (row["slo_attainment"], row["slo_attainment_low"]) == expected[:2]
        assert row["seeds"] == 6
    (difference,) = results.differences()
    assert (difference["policy"], difference["other"]) == ("mp-search", "sr-greedy")
    pairs = zip(values["mp-search"], values["sr-greedy"], strict=True)
    expected = mean_interval([a - b for a, b in pairs])
    assert (difference["difference"], difference["low"], difference["high"]) == pytest.approx(
        expected[:3]
    )
    assert difference["confidence"] == 0.95


def test_one_seed_gives_differences_without_a_verdict():
    (difference,) = small().differences()
    assert math.isnan(difference["low"]) and difference["verdict"] == "undecided"


def test_sequential_stopping_stops_where_it_is_decided_and_says_so():
    changes = {
        "seeds": 16,
        "rates": [0.5, 6],
        "num_devices": [1],
        "num_models": [2],
        "durations_s": [600],
    }
    every = small(**changes, policies=["sr-greedy", "mp-equal-1-1"])
    stopped = small(**changes, policies=["sr-greedy", "mp-equal-1-1"], until_decided=0.001)
    assert len(stopped.rows) < len(every.rows) == 2 * 2 * 16
    assert {row["seeds"] for row in stopped.differences()} <= {4, 8, 16}
    for row in stopped.differences():
        assert row["seeds"] == 16 or row["verdict"] != "undecided"
        assert row["confidence"] > 0.97
    kept = {(r["x"], r["policy"], r["replication"]): r for r in every.rows}
    assert all(kept[r["x"], r["policy"], r["replication"]] == r for r in stopped.rows)


# Forecasts.


def test_a_run_that_cannot_fit_is_refused_before_anything_is_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compute, "compute_block", lambda *_: pytest.fail("ran"))
    argv = ["run.py", "--config=sweep", "--config.rates=1e6", f"--out_dir={tmp_path / 'out'}"]
    assert run.main([*argv, "--config.durations_s=100,1e5"], 0.0) == 1
    error = capsys.readouterr().err
    assert "1e+11 requests" in error and "GB are free" in error and error.count("\n") == 1


def test_memory_of_this_machine_is_the_limit(monkeypatch):
    scenario = dataclasses.replace(BASE, rate_rps=1000.0, duration_s=1000.0)
    assert 0 < forecast.free_bytes() < 1e14
    monkeypatch.setattr(forecast, "free_bytes", lambda: 1e9)
    forecast.check({scenario: 1e6})
    monkeypatch.setattr(forecast, "free_bytes", lambda: 0.4e9)
    with pytest.raises(forecast.ForecastError, match=r"0\.4 GB are free"):
        forecast.check({scenario: 1e6})


def test_a_long_run_says_what_it_will_take(monkeypatch, capsys):
    monkeypatch.setattr(schedule, "FIRST_BLOCK", 1000)
    monkeypatch.setattr(forecast, "LONG_S", 0.0)
    small(seeds=30, policies=["mp-equal-1-1"])
    announced, predicted = capsys.readouterr().out.splitlines()
    assert announced.startswith("30 results to compute, 0 are stored; traffic of some 7.2e+03")
    numbers = re.findall(r"[\d.]+(?:e[+-]\d+)?", predicted)
    to_go, simulations, events, seconds, speed = map(float, numbers)
    assert to_go == 26  # of 240 requests each, 4 fill the first block
    assert simulations == 2 * to_go  # one to place, one to test
    assert events == pytest.approx(240 * simulations, rel=0.01)
    assert seconds == pytest.approx(events / (1e6 * speed), abs=0.6)


def test_what_is_left_is_forecast_at_first_and_after_a_tenth(monkeypatch, capsys):
    """Points that take longer the later they come, as those of a sweep over devices do."""
    monkeypatch.setattr(schedule, "FIRST_BLOCK", 1)
    monkeypatch.setattr(schedule, "BLOCK_S", 0.0)
    monkeypatch.setattr(schedule, "SHARED_BLOCK_S", 0.0)
    taken_s, told = [], []

    class Steady:
        """Computes nothing, in a time that is known."""

        workers = 1

        def compute(self, blocks, inputs, *_):
            for block in blocks:
                placing_s = {
                    policy: factor * scenario.num_devices * inputs.num_requests(scenario)[0]
                    for (policy, scenario), factor in zip(block, (1e-5, 1e-4), strict=True)
                }
                taken_s.append(sum(placing_s.values()) + 0.01)
                yield Done(block, dict.fromkeys(block, RECORD), placing_s, taken_s[-1])
                told.append(capsys.readouterr().out)

    config = configure(
        **{"num_devices": [*range(1, 33)], "rates": [20], "policies": ["sr-greedy", "mp-search"]},
        **{"num_models": [3], "durations_s": [60]},
    )
    records = runner.Records(Store(None), InputMaker(), Stopwatch(0.0), Steady())
    records.compute(Case(point.policy, point.scenario) for point in sweep.points(config))
    spent_s, total_s = [*itertools.accumulate(taken_s)], sum(taken_s)
    forecasts = [i for i, line in enumerate(told) if "results to go" in line]
    assert forecasts == [0, next(i for i, s in enumerate(spent_s) if s >= 0.1 * total_s)]
    for i in forecasts:
        left_s = float(re.search(r"(\S+) s at", told[i])[1])
        assert left_s == pytest.approx(total_s - spent_s[i], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("num_policies", [1, 3])
def test_memory_stays_below_the_forecast(num_policies):
    policies = ["mp-equal-1-1", "mp-equal-2-1", "mp-equal-4-1"][:num_policies]
    code = f"""
import experiments
experiments.run("sweep", durations_s=[1e4], rates=[200], num_devices=[8], seeds=1, cvs=[2],
                policies={policies})
lines = open("/proc/self/status").read().splitlines()
print(*(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    predicted = forecast.peak_bytes(2e6, 2e6 * num_policies)
    assert 0.5 * predicted < float(done.stdout.split()[-1]) < predicted


# In a notebook.


def test_results_are_a_data_frame_and_a_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = small(rates=[2, 4])
    frame = results.to_pandas()
    assert len(frame) == 4 and frame.slo_attainment.between(0, 1).all()
    assert frame.groupby("policy").slo_attainment.mean().shape == (2,)
    (axes,) = results.plot().axes
    assert axes.get_xlabel() == "Total rate (requests/s)"
    assert "mp-search" in results._repr_html_()
    assert not any(tmp_path.iterdir())


def test_numbers_and_lists_are_read_as_flags_are():
    results = experiments.run("sec6_3:smoke", rates=[2], cvs=[], slo_scales=(), slo_scale=4)
    assert {row["slo_scale"] for row in results.rows} == {"4"}
    assert {row["x"] for row in results.rows} == {2.0}
    assert all(row["trained_on_test"] for row in results.rows)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("sec9", {}, "unknown config 'sec9'"),
        ("sec6_3:smok", {}, "unknown variant of sec6_3 'smok'; did you mean smoke"),
        ("quickstart", {}, "not made of points"),
        ("sec6_3", {"slo_scal": 4}, "no field 'slo_scal'"),
        ("sec6_3", {"rates": ["fast"]}, "expected float"),
        ("sec6_3", {"num_devices": 6.5}, "expected int"),
    ],
)
def test_a_mistake_in_a_notebook_is_a_clear_error(name, changes, expected):
    with pytest.raises(ValueError, match=expected):
        experiments.run(name, **changes)


def test_importing_experiments_is_cheap():
    code = "import sys, experiments; print(*{'jax', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
