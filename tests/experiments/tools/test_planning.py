"""From a log of requests to a plan: what is trained on, what is chosen, what has to change."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import run
from beta_jax import (
    GB,
    Cluster,
    Model,
    ParallelConfig,
    Problem,
    Workload,
    compare_placements,
    load_placement,
    load_profile,
)
from experiments.tools import request_files
from experiments.tools.quickstart import describe_models

ROOT = Path(run.__file__).parent
EXAMPLE = ROOT / "data" / "examples" / "placement.json"
ALONE = ParallelConfig(1, 1)
Main = Callable[..., int]


@pytest.fixture
def main(tmp_path: Path) -> Main:
    def call(*arguments: str) -> int:
        argv = ["run.py", f"--out_dir={tmp_path / 'out'}", *arguments]
        return run.main(argv, start=time.perf_counter())

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# The requests that placements are made for, and those that test them.


@st.composite
def requests(draw) -> Workload:
    times = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=30).map(sorted))
    return Workload(np.array(times), np.arange(len(times)))


def as_pairs(workload: Workload) -> list[tuple[int, int]]:
    return [*zip(workload.arrival.tolist(), workload.model.tolist(), strict=True)]


@given(requests(), st.floats(0.01, 0.99))
def test_training_ends_where_testing_begins(log: Workload, share: float):
    train, test = request_files.split(log, share)
    assert as_pairs(train) + as_pairs(test) == as_pairs(log)
    cut = log.arrival[0] + (1 - share) * (log.arrival[-1] - log.arrival[0])
    assert all(time <= cut + 1e-6 for time in train.arrival)
    assert all(time >= cut - 1e-6 for time in test.arrival)


@given(requests(), st.integers(1, 5))
def test_slices_are_the_requests_in_parts_of_equal_time(log: Workload, count: int):
    try:
        parts = request_files.slices(log, count)
    except ValueError as error:
        assert "has no requests" in str(error) and count > 1
        return
    assert len(parts) == count
    assert [pair for part in parts for pair in as_pairs(part)] == as_pairs(log)
    width = (log.arrival[-1] - log.arrival[0]) / count
    for index, part in enumerate(parts):
        begin = log.arrival[0] + index * width
        assert ((begin - 1e-6 <= part.arrival) & (part.arrival <= begin + width + 1e-6)).all()


@pytest.mark.parametrize("share", [-0.5, 0.0, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share: float):
    with pytest.raises(ValueError, match=r"in \(0, 1\)"):
        request_files.split(Workload(np.arange(4), np.zeros(4)), share)


def test_listed_models_keep_type_and_slo_and_the_config_tells_the_others(shipped):
    profile, log = shipped
    listed = [Model("m3", "bert-6.7b", 9.0), Model("m1", "bert-1.3b", 7.0)]
    names = ["m1", "m2", "m3", "m10"]
    config = make_config(model_types=("bert-2.6b", "bert-1.3b"))
    models = describe_models(names, config, profile, log, listed)
    assert [m.name for m in models] == names
    assert [m.type for m in models] == ["bert-1.3b", "bert-2.6b", "bert-6.7b", "bert-1.3b"]
    assert (models[0].slo_s, models[2].slo_s) == (7.0, 9.0)
    assert models[1].slo_s == 5 * profile.single_device_latency_s("bert-2.6b")
    assert [m.rate_rps for m in models] == [0.5, 0.0, 0.5, 0.0]  # 2 requests in 2 s
    config = make_config(model_types=("bert-2.6b",) * 3, start_from="P.json")
    with pytest.raises(ValueError, match=r"2 models that P.json does not list \(m2, m10\), mod"):
        describe_models(names, config, profile, log, listed)


@pytest.fixture
def shipped():
    log = Workload.from_seconds([0.0, 2.0], [0, 2])
    return load_profile(ROOT / "data" / "profiles" / "v100.json"), log


def make_config(**changes):
    from configs.quickstart import CONFIG
    from experiments.engine.fields import replace

    return replace(CONFIG, changes)


# The command line.


@pytest.mark.slow
def test_today_is_improved_within_the_bound_and_the_change_is_told(main, tmp_path, capsys):
    today = f"--config.start_from={EXAMPLE}"
    arguments = ["--config=quickstart", "--config.policies=", "--config.num_devices=8"]
    arguments += ["--config.test_share=0.3", "--config.train_slices=2"]
    bound = ["--config.max_moved_gib=30", "--config.local_search.budget_simulations=4000"]
    assert main(*arguments, today, *bound) == 0
    folder = tmp_path / "out"
    before, after = rows(folder / "summary.csv")
    assert (before["placement"], after["placement"]) == ("today", "local-search")
    assert before["layout"] == "1x(1,1,4)" and float(before["moved_gib"]) == 0
    assert 0 < float(after["moved_gib"]) <= 30
    for row in (before, after):
        assert 0 < float(row["train_worst"]) <= float(row["train_attainment"]) <= 1
        assert 0 < int(row["num_requests"]) < 1000  # of the 2431, the last part
    assert float(after["train_attainment"]) > float(before["train_attainment"])

    old, models = load_placement(EXAMPLE)
    new, _ = load_placement(folder / "placement.json")
    problem = Problem(models, Cluster(8), load_profile(ROOT / "data" / "profiles" / "v100.json"))
    change = compare_placements(problem, old, new)
    assert change.bytes_moved == float(after["moved_gib"]) * GB
    assert f"from {EXAMPLE} to local-search: {change}" in capsys.readouterr().out
    table = rows(folder / "changes.csv")
    assert sum(int(row["bytes_moved"]) for row in table) == change.bytes_moved
    assert [row["change"] for row in table] == [group.kind for group in change.groups]
    added = [name for row in table for name in row["added"].split()]
    assert len(added) == change.num_added and {*added} <= {model.name for model in models}

    history = rows(folder / "history.csv")
    simulations = [int(row["num_simulations"]) for row in history]
    scores = [float(row["best_score"]) for row in history]
    assert simulations == sorted(simulations) and scores == sorted(scores)
    assert 4000 <= simulations[-1] < 5000
    assert (folder / "history.png").stat().st_size > 5_000

    assert main("--config=quickstart") == 0
    assert not [*folder.glob("history.*"), *folder.glob("changes.*")]


def test_evaluate_compares_placements_and_tells_what_changes(main, tmp_path, capsys):
    document = json.loads(EXAMPLE.read_text())
    first, *others = document["groups"][0]["models"]
    # The same pipeline less a model, which moves to a device of its own; another order of models.
    document["groups"] = [
        {"op": 1, "pp": 1, "models": [first]},
        {"op": 1, "pp": 4, "models": others},
    ]
    document["models"].reverse()
    path = tmp_path / "split.json"
    path.write_text(json.dumps(document))
    assert main("--config=evaluate", f"--config.placement={EXAMPLE},{path}") == 0
    folder = tmp_path / "out"
    one, two = rows(folder / "summary.csv")
    assert (one["placement"], two["placement"]) == ("placement", "split")
    assert float(one["moved_gib"]) == 0 and float(two["moved_gib"]) == pytest.approx(5.18, abs=0.01)
    new, old = rows(folder / "changes.csv")
    assert (new["change"], new["added"], new["kept"]) == ("new", first, "")
    assert (old["change"], old["dropped"], old["kept"]) == ("models", first, " ".join(others))
    assert "from placement to split: 5.18 GiB of weights to load" in capsys.readouterr().out
    shown = {row["model"]: row["replicas"] for row in rows(folder / "models.csv")[8:]}
    assert shown == dict.fromkeys([first, *others], "1")
    facts = json.loads((folder / "run.json").read_text())
    assert {str(EXAMPLE), str(path)} <= {*facts["inputs_sha256"]}
    assert main("--config=evaluate") == 0
    assert not (folder / "changes.csv").exists()
    assert "moved_gib" not in rows(folder / "summary.csv")[0]


def test_a_placement_that_lacks_a_model_is_compared_by_names(main, tmp_path):
    document = json.loads(EXAMPLE.read_text())
    lost = document["models"].pop(0)["name"]
    document["groups"][0]["models"].remove(lost)
    path = tmp_path / "fewer.json"
    path.write_text(json.dumps(document))
    assert main("--config=evaluate", f"--config.placement={path},{EXAMPLE}") == 0
    fewer, every = rows(tmp_path / "out" / "summary.csv")
    assert fewer["num_requests"] == every["num_requests"]
    (change,) = rows(tmp_path / "out" / "changes.csv")
    assert (change["added"], change["dropped"]) == (lost, "")


def test_a_schedule_is_compared_in_service_only(main, tmp_path):
    document = json.loads(EXAMPLE.read_text())
    document["segments"] = [{"start_s": 0, "groups": document.pop("groups")}]
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(document))
    assert main("--config=evaluate", f"--config.placement={path},{EXAMPLE}") == 0
    scheduled, static = rows(tmp_path / "out" / "summary.csv")
    assert scheduled["num_good"] == static["num_good"]
    assert (scheduled["moved_gib"], static["moved_gib"]) == ("nan", "nan")
    assert not (tmp_path / "out" / "changes.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["quickstart", "--config.max_moved_gib=3"], "give start_from"),
        (
            ["quickstart", "--config.start_from={example}", "--config.max_moved_gib=-1"],
            "max_moved_gib must be >= 0",
        ),
        (["quickstart", "--config.start_from={schedule}"], "schedule.json: a search starts from"),
        (["quickstart", "--config.start_from={wide}"], "wide.json: 1x(1,1,8) uses 8 devices of 4"),
        (["quickstart", "--config.start_from={missing}"], "missing.json"),
        (["quickstart", "--config.num_devices="], "num_devices is empty"),
        (["quickstart", "--config.num_devices=4,6"], "how many are enough, `run.py --config plan`"),
        (["quickstart", "--config.test_share=1"], "in (0, 1), got 1"),
        (["quickstart", "--config.test_share=.5", "--config.test_requests=x"], "give one"),
        (["quickstart", "--config.train_slices=0"], "1 slice"),
        (["quickstart", "--config.train_slices=100000"], "has no requests"),
        (["quickstart", "--config.local_search.worst_share=0"], "worst_share must be in (0, 1]"),
        (["quickstart", "--config.local_search.fairness=2"], "fairness must be in [0, 1]"),
        (
            [
                "quickstart",
                "--config.policies=local-search",
                "--config.local_search.budget_simulations=-1",
            ],
            "budget_simulations must be >= 0",
        ),
        (["evaluate", "--config.placement="], "placement files must be given"),
        (["evaluate", "--config.placement={example},{example}"], "each once"),
        (["evaluate", "--config.placement={example},{other}"], "other.json: bert-2.6b-0 is bert-1"),
        (
            ["evaluate", "--config.num_devices=4", "--config.placement={example},{wide}"],
            "wide.json",
        ),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(arguments, expected, main, tmp_path, capsys):
    document = json.loads(EXAMPLE.read_text())
    (groups,) = document["groups"]
    variants = {
        "schedule": {"groups": None, "segments": [{"start_s": 0, "groups": [groups]}]},
        "wide": {"groups": [groups | {"pp": 8}]},
        "other": {"models": [m | {"type": "bert-1.3b"} for m in document["models"]]},
    }
    for name, change in variants.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document | change))
    files = {name: tmp_path / f"{name}.json" for name in (*variants, "missing")}
    config, *overrides = (argument.format(example=EXAMPLE, **files) for argument in arguments)
    assert main(f"--config={config}", *overrides) in (1, 2)
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not [*(tmp_path / "out").glob("*")]
