"""The command line: configs, typed overrides, clear errors, and results that repeat to the byte."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import run
from data.examples.generate import generate
from experiments.cli import command_line, flags
from experiments.engine import fields, files, schedule, store
from experiments.experiment import Experiment
from experiments.tools import evaluate

ROOT = Path(run.__file__).parent
CONFIGS = (
    *("batching", "evaluate", "fit_profile", "llm", "llm_check", "llm_fit", "loading", "paper"),
    *("plan", "profile", "quickstart", "sec3", "sec6_2", "sec6_3", "sec6_4", "sec6_5"),
    *("selfcheck", "sweep", "trace_report"),
)
ONE_POINT = ["--config", "sec6_3", "--config.rates=2", "--config.cvs=", "--config.slo_scales="]
ONE_POINT += ["--config.duration_s=100", "--config.policies=mp-equal-4-4,mp-search"]
Main = Callable[..., int]


@pytest.fixture
def main(tmp_path: Path) -> Main:
    """Run the command in this process, writing to `tmp_path/out`; returns the exit code."""

    def call(*arguments: str) -> int:
        argv = ["run.py", f"--out_dir={tmp_path / 'out'}", *arguments]
        return run.main(argv, start=time.perf_counter())

    return call


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "run.py", *arguments]
    # Without what JAX has set in this process, as a user's shell is.
    environment = {
        k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")
    }
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def parse(*arguments: str) -> command_line.Command:
    return command_line.parse(["run.py", *arguments])


# Configs and overrides.


def test_help_lists_the_configs_without_importing_jax():
    check = "import sys, run; run.main(['run.py', '--help'], 0.0); assert 'jax' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in CONFIGS:
        assert sum(line.strip().startswith(f"{name} ") for line in done.stdout.splitlines()) == 1


def test_help_of_a_config_shows_its_docstring_and_every_field(capsys):
    assert run.main(["run.py", "--config", "sec6_3", "--help"], 0.0) == 0
    text = capsys.readouterr().out
    assert "python run.py --config sec6_3" in text
    assert "--config.rates=0.5,2,4,6,8\n      float,...; swept total rates, requests/s" in text
    assert "--config.rules.dispatch=earliest_free\n      str; earliest_free (published)" in text
    assert "float or none; every stage" in text
    for leaf in fields.walk(parse("--config", "sec6_3").config):
        assert f"--{leaf.name}=" in text


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_states_what_it_is_its_command_and_what_to_expect(name, capsys):
    assert run.main(["run.py", "--config", name, "--help"], 0.0) == 0
    summary, _, text = capsys.readouterr().out.partition("\n")
    assert summary.endswith(".")
    assert f"python run.py --config {name}" in text
    assert "Takes" in text and "Expect" in text


def test_overrides_are_typed_and_come_in_any_order():
    before = parse("--config.rates=2,4,8", "--config.num_devices", "32", "--config", "sec6_3")
    after = parse("--config=sec6_3", "--config.num_devices=32", "--config.rates", "2,4,8")
    assert before.config == after.config
    assert before.config.rates == (2.0, 4.0, 8.0)
    assert all(isinstance(rate, float) for rate in before.config.rates)
    assert before.config.num_devices == 32
    default = parse("--config=sec6_3").config
    assert default == dataclasses.replace(
        before.config, rates=default.rates, num_devices=default.num_devices
    )


def test_overrides_reach_nested_and_optional_fields_and_variants():
    changed = parse("--config=sec6_3:smoke", "--config.rules.dispatch=round_robin")
    assert changed.config.rules.dispatch == "round_robin"
    assert changed.config.duration_s < parse("--config=sec6_3").config.duration_s
    assert parse("--config=evaluate").config.num_devices is None
    assert parse("--config=evaluate", "--config.num_devices=4").config.num_devices == 4
    assert parse("--config=evaluate", "--config.num_devices=none").config.num_devices is None


def test_results_go_to_a_folder_named_after_config_and_variant():
    assert parse("--config=sec6_3").out_dir == Path("results/sec6_3")
    assert parse("--config=sec6_3:smoke").out_dir == Path("results/sec6_3-smoke")
    assert parse("--config=sec6_3:smoke", "--out_dir=here").out_dir == Path("here")


@dataclasses.dataclass(frozen=True)
class Inner:
    ratio: float = 0.5


@dataclasses.dataclass(frozen=True)
class Sample:
    count: Annotated[int, "how many"] = 3
    quick: bool = False
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    limit: float | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)


def read(*arguments: str) -> Sample:
    values = command_line.flags.FlagValues()
    flags.define_flags(Sample(), values)
    values(["program", *arguments])
    return flags.from_flags(Sample(), values)


def test_every_kind_of_field_is_read():
    assert read() == Sample()
    changed = read(
        "--config.quick",
        "--config.kind=b",
        "--config.names=x,y",
        "--config.limit=1e3",
        "--config.inner.ratio=2",
    )
    assert changed == Sample(3, True, "b", ("x", "y"), 1000.0, Inner(2.0))
    assert read("--noconfig.quick", "--config.limit=none", "--config.names=") == Sample()


@given(
    st.one_of(
        st.tuples(st.just(int), st.integers()),
        st.tuples(st.just(float), st.floats(allow_nan=False)),
        st.tuples(st.just(tuple[float, ...]), st.lists(st.floats(allow_nan=False)).map(tuple)),
        st.tuples(st.just(int | None), st.none() | st.integers()),
        st.tuples(st.just(bool), st.booleans()),
    )
)
def test_a_shown_value_reads_back_exactly(case):
    annotation, value = case
    read_back = fields.parse_value(fields.render(value), annotation)
    assert read_back == value and type(read_back) is type(value)


MISTAKES = [
    ([], f"known: {', '.join(CONFIGS)}"),
    (["--config", "sec6_9"], "did you mean sec6_"),
    (["--config", "sec6_3:smok"], "did you mean smoke"),
    (["--config", "evaluate:smoke"], "known: none"),
    (["--config", "sec6_3", "--config.slo_scal=4"], "config.slo_scale"),
    (["--config", "sec6_3", "--plot_onyl"], "plot_only"),
    (["--config", "sec6_3", "--config.rates=2,x"], "expected float, got 'x'"),
    (["--config.slo_scale=nan", "--config", "sec6_3"], "expected float"),
    (["--config", "sec6_3", "--config.num_devices=6.5"], "expected int"),
    (["--config", "sec6_3", "--config.rng=fast"], "expected one of jax, legacy"),
    (["--config", "sec6_3", "--config.rates", "2,", "4"], "config.rates"),
    (["--config", "sec6_3", "stray"], "'stray'"),
    (["--config", "sec6_3", "--config.cv"], "Missing value"),
    (["--config", "sec6_3", "--clean", "--plot_only"], "--clean deletes"),
    (["--config", "sec6_3", "--clean", "--json"], "--clean deletes"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES)
def test_a_mistake_is_answered_in_one_line(arguments, expected, main, tmp_path, capsys):
    assert main(*arguments) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_real_command_ends_with_the_code_and_no_traceback():
    done = command("--config", "sec6_3", "--config.slo_scal=4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# Bad input.

BAD_VALUES = [
    (["--config.slo_scale=0"], "SLO scale must be > 0"),
    (["--config.rates=2,-1"], "--config.rates=-1: total rate must be >= 0"),
    (["--config.warmup_s=700"], "--config.warmup_s=700, --config.duration_s=100: a warm-up cut"),
    (["--config.policies=mp-serch"], "nearest: mp-search"),
    (["--config.model_types=bert-9b"], "bert-9b"),
    (["--config.split=equal"], "rate split must be"),
    (["--config.num_devices=0"], "devices"),
    (["--config.rules.dispatch=random"], "dispatch"),
    (["--config.rules.max_batch=3"], "one of (1, 2, 4, 8, 16), got 3"),
    (["--config.rules.max_batch=2"], "need batching, which is off"),
    (["--config.rules.batching=strict", "--config.rules.dispatch=round_robin"], "round_robin"),
    (["--config.profile=missing.json"], "missing.json"),
    (["--config.duration_s=15"], "warm-up"),
    (["--config.rates="], "no points"),
    (["--config.seeds=0"], "seeds must be >= 1"),
    ([f"--config.seeds={2**64}"], "seeds must be <= 10000"),  # found by fuzzing
    (["--config.until_decided=-1"], "until_decided must be >= 0"),
    (["--config.train_seed=1"], "legacy seeds of 4 models"),
    (["--config.duration_s=1e9"], "lower rates or shorter traffic"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD_VALUES)
def test_bad_input_ends_in_one_line_and_writes_nothing(arguments, expected, main, tmp_path, capsys):
    assert main(*ONE_POINT, *arguments) == 1
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") <= 2
    assert "Traceback" not in error
    assert not [*(tmp_path / "out").glob("*")]


def test_nothing_placed_is_an_error_and_makes_no_table(main, tmp_path, capsys):
    assert main(*ONE_POINT, "--config.memory_gib=1") == 1
    error = capsys.readouterr().err
    assert "error: --config.memory_gib=1: no model is placed: mp-equal-4-4: nothing" in error
    assert error.count("nothing could be placed") == 1 and "needs 3.1 GiB of each device" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.jsonl"]


def test_an_unwritable_out_dir_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    argv = ["run.py", *ONE_POINT, f"--out_dir={tmp_path / 'file' / 'below'}"]
    monkeypatch.setattr(Experiment, "execute", lambda *_: pytest.fail("worked first"))
    assert run.main(argv, 0.0) == 1
    assert "cannot write to --out_dir" in capsys.readouterr().err


FOLDERS = ("evaluate placement", "evaluate profile", "quickstart requests", "sweep models")


@pytest.mark.parametrize("config, field", [entry.split() for entry in FOLDERS])
def test_a_folder_in_place_of_a_file_is_named_with_its_field(config, field, main, tmp_path, capsys):
    assert main("--config", config, f"--config.{field}={tmp_path}") == 1
    assert capsys.readouterr().err == f"error: --config.{field}={tmp_path}: Is a directory\n"


def test_the_line_of_a_file_is_named_with_its_field(main, tmp_path, capsys):
    (tmp_path / "trace.csv").write_text("no,trace\n")
    assert main("--config", "sec6_2", f"--config.maf1={tmp_path / 'trace.csv'}") == 1
    assert f"error: --config.maf1={tmp_path / 'trace.csv'}, line 1: " in capsys.readouterr().err


def test_results_of_another_config_are_not_written_over(main, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"config_name": "sec6_5"}')
    monkeypatch.setattr(Experiment, "execute", lambda *_: pytest.fail("worked first"))
    assert main(*ONE_POINT) == 1
    assert "out holds results of sec6_5, not of sec6_3" in capsys.readouterr().err


def test_ctrl_c_says_whether_the_same_command_goes_on(main, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.folder, "prepare", interrupted)
    assert main(*ONE_POINT) == 130
    assert capsys.readouterr().err == "error: interrupted: nothing is stored\n"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / store.FILE).touch()
    assert main(*ONE_POINT) == 130
    assert "the same command goes on from what is stored" in capsys.readouterr().err


def test_a_failed_or_interrupted_run_changes_no_file(main, tmp_path, monkeypatch):
    assert main(*ONE_POINT) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main(*ONE_POINT, "--config.slo_scale=-1") == 1

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "execute", interrupt)
        assert main(*ONE_POINT) == 130
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    files.write(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write(path, "new")
    assert path.read_text() == "old"


# Figures.


def test_a_run_repeats_to_the_byte_and_says_what_made_it(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        done = command(*ONE_POINT, "--out_dir", str(folder))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        for part in ("import", "compile", "place", "simulate", "draw"):
            assert part in done.stdout.splitlines()[-1]
    for name in ("table.csv", "placements.json", "large_model_exp.pdf", "large_model_exp.png"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second and first
    facts = json.loads((folders[0] / "run.json").read_text())
    assert facts["config"]["config.rates"] == "2"
    assert {"argv", "packages", "git_revision", "devices", "simulator_version"} <= set(facts)
    assert facts["inputs_sha256"] == {
        "data/profiles/v100.json": hashlib.sha256(
            (ROOT / "data" / "profiles" / "v100.json").read_bytes()
        ).hexdigest()
    }
    assert set(json.loads((folders[0] / "timings.json").read_text())) >= {"place", "simulate"}


def test_the_table_has_every_parameter_and_number(main, tmp_path):
    assert main(*ONE_POINT) == 0
    manual, searched = rows(tmp_path / "out" / "table.csv")
    assert (manual["policy"], searched["policy"]) == ("mp-equal-4-4", "mp-search")
    for leaf in fields.walk(parse(*ONE_POINT).config, ""):
        if leaf.name in manual and leaf.name != "rate_rps":
            assert manual[leaf.name] == fields.render(leaf.value)
    assert (manual["panel"], manual["x_name"], manual["x"]) == ("rate", "rate_rps", "2.0")
    assert manual["rate_rps"] == "2"
    assert manual["placement"] == "4x(1,4,4)"
    assert float(manual["slo_attainment"]) <= float(searched["slo_attainment"]) <= 1
    assert 0 < float(manual["latency_mean_s"]) <= float(manual["latency_p99_s"])
    placements = json.loads((tmp_path / "out" / "placements.json").read_text())
    assert placements[0]["groups"] == [{"op": 4, "pp": 4, "models": [i]} for i in range(4)]


def test_a_table_says_how_it_batches_where_something_does(main, tmp_path):
    columns = {"rules.batching", "rules.max_batch"}
    assert main(*ONE_POINT) == 0
    alone, *_ = rows(tmp_path / "out" / "table.csv")
    assert not columns & set(alone)
    assert main(*ONE_POINT, "--config.rules.batching=strict", "--config.rules.max_batch=2") == 0
    batched, *_ = rows(tmp_path / "out" / "table.csv")
    assert [name for name in batched if name not in columns] == [*alone]
    assert (batched["rules.batching"], batched["rules.max_batch"]) == ("strict", "2")


def test_plot_only_draws_the_same_picture_from_the_table_alone(main, tmp_path, capsys):
    assert main(*ONE_POINT) == 0
    folder = tmp_path / "out"
    pictures = {path: path.read_bytes() for path in folder.glob("large_model_exp.*")}
    assert len(pictures) == 3
    for path in folder.iterdir():
        if path.name != "table.csv":
            path.unlink()
    assert main(*ONE_POINT, "--plot_only") == 0
    assert {path: path.read_bytes() for path in folder.glob("large_model_exp.*")} == pictures
    (folder / "table.csv").unlink()
    assert main(*ONE_POINT, "--plot_only") == 1
    assert "run without --plot_only" in capsys.readouterr().err


def test_results_do_not_depend_on_what_is_held_in_memory_together(main, tmp_path, monkeypatch):
    arguments = [*ONE_POINT, "--config.rates=1,2,4"]
    assert main(*arguments) == 0
    together = (tmp_path / "out" / "table.csv").read_bytes()
    assert main(*arguments, "--clean") == 0
    monkeypatch.setattr(schedule, "REQUESTS_AT_ONCE", 300)
    assert main(*arguments) == 0
    assert (tmp_path / "out" / "table.csv").read_bytes() == together


def test_train_and_test_traffic_are_told_apart(main, tmp_path):
    assert main(*ONE_POINT, "--config.test_seed=7") == 0
    fresh = rows(tmp_path / "out" / "table.csv")
    assert main(*ONE_POINT) == 0
    same = rows(tmp_path / "out" / "table.csv")
    assert [row["train_score"] for row in fresh] == [row["train_score"] for row in same]
    assert [row["num_requests"] for row in fresh] != [row["num_requests"] for row in same]
    assert {row["trained_on_test"] for row in fresh} == {"False"}
    assert {row["trained_on_test"] for row in same} == {"True"}


def test_a_table_of_placements_tested_on_their_training_traffic_says_so(main, tmp_path, capsys):
    assert main(*ONE_POINT, "--config.test_seed=7") == 0
    assert "trained on the traffic" not in capsys.readouterr().out
    assert main(*ONE_POINT) == 0
    assert "trained on the traffic that they are tested on" in capsys.readouterr().out
    assert main("--config=quickstart", f"--out_dir={tmp_path / 'quickstart'}") == 0
    assert "trained on the traffic that they are tested on" in capsys.readouterr().out


def test_traffic_without_requests_is_an_error(main, capsys):
    assert main(*ONE_POINT, "--config.rates=0") == 1
    assert "no request arrives in the traffic, 0 requests/s for 100 s" in capsys.readouterr().err


def test_sec6_3_equals_the_published_simulator(main, tmp_path, shared):
    profile = shared / "golden" / "profiles" / "v100_like.json"
    assert main("--config=sec6_3", f"--config.profile={profile}") == 0
    ours = {
        (f"goodput_vs_{row['panel']}", float(row["x"]), row["policy"]): row
        for row in rows(tmp_path / "out" / "table.csv")
    }
    published = rows(shared / "golden" / "sec6_3" / "summary.csv")
    assert len(published) == len(ours) == 75
    for row in published:
        own = ours[row["exp"], float(row["x"]), row["policy"]]
        tolerance = 0.002 if row["policy"] == "mp-search" else 1e-6
        assert math.isclose(float(own["slo_attainment"]), float(row["goodput"]), abs_tol=tolerance)
        assert math.isclose(
            float(own["slo_attainment_all"]), float(row["goodput_all"]), abs_tol=tolerance
        )
        assert own["placement"] == row["placement"]


# Own requests: quickstart and evaluate.


def test_the_examples_are_what_their_command_makes(tmp_path):
    generate(tmp_path)
    for name in ("requests.csv", "placement.json"):
        assert (tmp_path / name).read_bytes() == (ROOT / "data" / "examples" / name).read_bytes()


def test_quickstart_finds_a_placement_that_evaluate_confirms(main, tmp_path, capsys):
    assert main("--config=quickstart") == 0
    folder = tmp_path / "out"
    searched, replicated = rows(folder / "summary.csv")
    assert (searched["placement"], replicated["placement"]) == ("mp-search", "sr-greedy")
    assert float(searched["slo_attainment"]) > float(replicated["slo_attainment"]) + 0.2
    assert (folder / "quickstart.png").stat().st_size > 10_000
    certificates = {row["placement"]: row for row in rows(folder / "certificates.csv")}
    for row in (searched, replicated):
        own = certificates[row["placement"]]
        gap = float(own["upper_bound"]) - float(row["train_attainment"])
        assert float(own["left_to_gain"]) == gap > 0
    assert certificates["mp-search"]["chosen"] == "True"
    own = (folder / "placement.json").rename(tmp_path / "mine.json")
    capsys.readouterr()
    folder = tmp_path / "evaluated"
    assert main("--config=evaluate", f"--config.placement={own}", f"--out_dir={folder}") == 0
    (confirmed,) = rows(folder / "summary.csv")
    for name in ("num_requests", "slo_attainment", "latency_p99_s", "layout"):
        assert confirmed[name] == searched[name]
    by_model, by_group = rows(folder / "models.csv"), rows(folder / "groups.csv")
    assert len(by_model) == 8
    for table in (by_model, by_group):
        assert sum(int(row["num_good"]) for row in table) == int(confirmed["num_good"])
    assert "bert-2.6b-7" in capsys.readouterr().out


def test_quickstart_tells_requests_to_plan_for_from_requests_to_test_on(main, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("arrival_s,model\n0.5,bert-2.6b-7\n0.1,bert-2.6b-0\n")
    assert main("--config=quickstart", f"--config.test_requests={test}") == 0
    assert [row["num_requests"] for row in rows(tmp_path / "out" / "summary.csv")] == ["2", "2"]


def test_models_are_taken_in_order_of_their_numbers_each_with_its_type(main, tmp_path):
    requests = tmp_path / "requests.csv"
    requests.write_text("model,arrival_s\nm10,3\nm9,4\nm2,1\n")
    types = "bert-1.3b,bert-2.6b,bert-6.7b"
    arguments = ["--config=quickstart", f"--config.requests={requests}"]
    assert main(*arguments, f"--config.model_types={types}") == 0
    models = rows(tmp_path / "out" / "models.csv")[:3]
    assert [row["model"] for row in models] == ["m2", "m9", "m10"]
    assert ",".join(row["type"] for row in models) == types


def test_evaluate_takes_a_schedule_of_placements(main, tmp_path):
    document = json.loads((ROOT / "data" / "examples" / "placement.json").read_text())
    pipeline = document.pop("groups")
    first = [{"op": 1, "pp": 2, "models": ["bert-2.6b-0"]}]
    document["segments"] = [{"start_s": 0, "groups": first}, {"start_s": 150, "groups": pipeline}]
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(document))
    assert main("--config=evaluate", f"--config.placement={path}") == 0
    (group,) = rows(tmp_path / "out" / "groups.csv")
    assert group["config"] == "(1,1,2)|(1,1,4)"
    (summary,) = rows(tmp_path / "out" / "summary.csv")
    assert summary["num_good"] == group["num_good"]
    assert summary["layout"].startswith("2 segments")


def test_evaluate_says_why_requests_missed_and_how_busy_groups_were(main, tmp_path, capsys):
    assert main("--config=evaluate") == 0
    folder = tmp_path / "out"
    (summary,) = rows(folder / "summary.csv")
    reasons = ("no_replica", "slo_too_short", "unfit_group", "behind_own", "behind_other", "failed")
    misses = rows(folder / "misses.csv")
    assert {row["group"] for row in misses} == {"0"}
    missed = {row["model"]: sum(int(row[reason]) for reason in reasons) for row in misses}
    for row in rows(folder / "models.csv"):
        assert missed[row["model"]] == int(row["num_requests"]) - int(row["num_good"])
    printed = capsys.readouterr().out
    assert f"\n{'  '.join(reasons)}\n" in printed
    assert sum(missed.values()) == int(summary["num_requests"]) - int(summary["num_good"])
    (group,) = rows(folder / "groups.csv")
    bins = rows(folder / "utilisation.csv")
    mean = sum(float(row["utilisation"]) for row in bins) / len(bins)
    assert float(group["utilisation"]) == pytest.approx(mean, rel=1e-9)
    assert (folder / "utilisation.png").stat().st_size > 5_000
    assert (folder / "misses.png").stat().st_size > 5_000


def test_evaluate_writes_a_timeline_only_if_asked(main, tmp_path, capsys, monkeypatch):
    assert main("--config=evaluate", "--config.timeline=60,90") == 0
    path = tmp_path / "out" / "timeline.json"
    assert f"{path}: open it at https://ui.perfetto.dev" in capsys.readouterr().out
    events = json.loads(path.read_text())["traceEvents"]
    requests = {event["args"]["request"] for event in events if event["ph"] != "M"}
    times = [float(row["arrival_s"]) for row in rows(ROOT / "data" / "examples" / "requests.csv")]
    assert requests == {i for i, time_s in enumerate(times) if 60 <= time_s < 90}
    assert main("--config=evaluate") == 0
    assert not path.exists()
    monkeypatch.setattr(evaluate, "MAX_TIMELINE_REQUESTS", len(requests) - 1)
    assert main("--config=evaluate", "--config.timeline=60,90") == 1
    assert f"it shows 1 to {len(requests) - 1}" in capsys.readouterr().err


def test_no_misses_are_a_table_without_rows_and_no_figure(main, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "misses.svg").write_text("of an earlier run")
    requests = tmp_path / "requests.csv"
    requests.write_text("arrival_s,model\n0,bert-2.6b-0\n")
    assert main("--config=evaluate", f"--config.requests={requests}") == 0
    assert rows(tmp_path / "out" / "misses.csv") == []
    assert (tmp_path / "out" / "misses.csv").read_text().startswith("placement,model,group,no_rep")
    assert not (tmp_path / "out" / "misses.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--config=nothing"], run.MISUSED, "unknown config"),
        (["--config=evaluate", "--config.requests=no.csv"], run.FAILED, "no.csv"),
        (["--config=evaluate", "--config.memory_gib=x"], run.MISUSED, "memory_gib"),
        (["--config=fit_profile", f"--config.rows={'a' * 300}"], run.FAILED, "aaa"),
    ],
)
def test_an_error_is_json_too_where_json_is_asked_for(main, capsys, arguments, code, says):
    assert main(*arguments, "--json") == code
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["exit_code"] == code and says in said["error"]
    assert err.endswith(f"error: {said['error']}\n")
    assert main(*arguments) == code
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config=evaluate", "--config.requests={row}"], "line 3"),
        (["--config=evaluate", "--config.requests={empty}"], "no requests"),
        (["--config=quickstart", "--config.test_requests={empty}"], "no requests"),
        (["--config=evaluate", "--config.placement={idle}"], "hosts no model"),
        (["--config=quickstart", "--config.requests={row}"], "line 3"),
        (["--config=quickstart", "--config.requests={empty}"], "names 0 models"),
        (["--config=quickstart", "--config.requests={header}"], "line 1"),
        (["--config=quickstart", "--config.requests={missing}"], "missing"),
        (["--config=quickstart", "--config.model_types=bert-1.3b,bert-2.6b"], "names 8 models"),
        (["--config=quickstart", "--config.memory_gib=0.5"], "nothing could be placed"),
        (["--config=quickstart", "--config.model_types=bert-103.5b"], "nothing could be placed"),
        (["--config=quickstart", "--config.policies=sr-gredy"], "nearest: sr-greedy"),
        (["--config=evaluate", "--config.num_devices=3"], "4 devices of 3"),
        (["--config=evaluate", "--config.memory_gib=3"], "GiB"),
        (["--config=evaluate", "--config.placement={row}"], "not JSON"),
        (["--config=evaluate", "--config.profile={row}"], "row.csv"),
        (["--config=evaluate", "--config.warmup_s=1000"], "warm-up"),
        (["--config=evaluate", "--config.timeline=1000,2000"], "0 requests arrive in the 1000 to"),
        (["--config=evaluate", "--config.timeline=60"], "timeline must be from,to"),
        (["--config=evaluate", "--config.timeline=60,30"], "timeline must be from,to"),
    ],
)
def test_bad_files_end_in_one_line_and_write_nothing(arguments, expected, main, tmp_path, capsys):
    contents = {
        "row": "arrival_s,model\n0.1,bert-2.6b-0\nsoon,bert-2.6b-0\n",
        "empty": "arrival_s,model\n",
        "header": "time,model\n0.1,bert-2.6b-0\n",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.csv").write_text(content)
    files = {name: tmp_path / f"{name}.csv" for name in (*contents, "missing")}
    placement = json.loads((ROOT / "data" / "examples" / "placement.json").read_text())
    files["idle"] = tmp_path / "idle.json"
    files["idle"].write_text(json.dumps(placement | {"groups": []}))
    assert main(*(argument.format(**files) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") <= 2
    assert not [*(tmp_path / "out").glob("*")]


def test_a_real_service_is_planned_and_evaluated(main, tmp_path, shared):
    trace = rows(shared / "data" / "traces" / "AzureLLMInferenceTrace_conv.csv")
    times = [datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in trace]
    requests = tmp_path / "requests.csv"
    lines = [f"{(t - times[0]).total_seconds()},m{i % 8}\n" for i, t in enumerate(times)]
    requests.write_text("arrival_s,model\n" + "".join(lines))
    files = [
        f"--config.requests={requests}",
        f"--config.profile={shared / 'data' / 'profiles' / 'v100_measured.json'}",
        "--config.num_devices=16",
    ]
    assert main("--config=quickstart", *files) == 0
    searched, replicated = rows(tmp_path / "out" / "summary.csv")
    assert searched["num_requests"] == replicated["num_requests"] == "19366"
    assert float(searched["slo_attainment"]) >= float(replicated["slo_attainment"])
    placement = (tmp_path / "out" / "placement.json").rename(tmp_path / "placement.json")
    files += [f"--config.placement={placement}", f"--out_dir={tmp_path / 'evaluated'}"]
    assert main("--config=evaluate", *files) == 0
    (confirmed,) = rows(tmp_path / "evaluated" / "summary.csv")
    assert confirmed["slo_attainment"] == searched["slo_attainment"]
    by_model = rows(tmp_path / "evaluated" / "models.csv")
    assert sum(int(row["num_requests"]) for row in by_model) == 19366
