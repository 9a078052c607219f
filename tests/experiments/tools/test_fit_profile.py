"""The config `fit_profile`: from measured rows to a profile for everything else."""

from __future__ import annotations

import csv
import dataclasses
import time

import pytest

import run
from beta_jax.profiles.cost_model import load_cost_model
from beta_jax.profiles.profile import Profile, Provenance, load_profile, save_profile
from beta_jax.types import ParallelConfig
from experiments.paper.sec3 import figures as sec3_figures
from experiments.tools import fit_profile

TYPES = ("bert-1.3b", "bert-2.6b")


def execute(out_dir, *arguments: str) -> int:
    command = ["run.py", "--out_dir", str(out_dir), "--config", "fit_profile", *arguments]
    return run.main(command, time.perf_counter())


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What a V100 would have shown, but that one row contradicts the others."""
    model = load_cost_model("v100")
    document = model.profile(TYPES, ops=(1, 2), pps=(1, 2, 4), batches=(1, 2)).to_dict()
    for row in document["types"]["bert-1.3b"]["configs"]:
        if (row["op"], row["pp"]) == (2, 2):
            row["stage_latency_s"]["1"] = [2 * s for s in row["stage_latency_s"]["1"]]
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    save_profile(path, Profile.from_dict(document))
    return path


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_become_a_profile_tables_and_figures(rows, tmp_path, capsys):
    out = tmp_path / "fitted"
    chosen = (f"--config.rows={rows}", "--config.device_gib=16", "--config.others=bert-6.7b")
    assert execute(out, *chosen, "--config.pps=1,2,4,8", "--config.batches=1,4") == 0
    printed = capsys.readouterr().out
    assert "contradicts the rest: bert-1.3b (1,2,2), batch 1" in printed
    assert printed.count("contradicts the rest") == 1
    profile = load_profile(out / "profile.json")
    assert profile.types == (*TYPES, "bert-6.7b")
    assert profile == load_cost_model(out / "cost_model.json").profile(
        profile.types, pps=(1, 2, 4, 8), batches=(1, 4)
    )
    published = load_profile("v100")
    for name in TYPES:
        for op, pp, batch in ((1, 1, 1), (1, 8, 4), (2, 1, 4)):
            config = ParallelConfig(op, pp)
            ours, known = (p.stage_latency_s(name, config, batch) for p in (profile, published))
            assert ours.sum() == pytest.approx(known.sum(), rel=0.03)
    predicted = {
        (row["type"], row["op"], row["pp"], row["batch"]): row
        for row in table(out / "predictions.csv")
    }
    assert predicted["bert-1.3b", "2", "2", "1"]["extrapolates"] == ""
    assert predicted["bert-1.3b", "1", "8", "4"]["extrapolates"] == "pp 8 > 4, batch 4 > 2"
    assert predicted["bert-6.7b", "1", "1", "1"]["extrapolates"] == "type not measured"
    assert {row["from"] for row in table(out / "numbers.csv")} == {"rows", "assumed"}
    assert [row["type"] for row in table(out / "errors.csv")] == [*TYPES, "all", "all, op 1"]
    contradicting = [row for row in table(out / "rows.csv") if row["contradicts"] == "True"]
    assert len(contradicting) == 1
    figures = {path: path.read_bytes() for path in out.glob("*.png")}
    assert len(figures) == 7
    assert execute(out, "--plot_only") == 0
    assert {path: path.read_bytes() for path in out.glob("*.png")} == figures


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "rows=no_such.json",
            "--config.rows=no_such.json: there is no such file; `run.py --config profile`",
        ),
        ("device_gib=0", "device_gib must be > 0, got 0"),
        ("batches=2,4", "batches must be >= 1 and have 1"),
        ("pps=0,1", "ops and pps must be >= 1"),
        ("known=bert-103.5b:16", "known: expected TYPE:STAGES:SECONDS such as"),
        ("known=bert-103.5b:16:nan", "known: expected TYPE:STAGES:SECONDS such as"),
        ("others=bert-2", "--config.others: no architecture 'bert-2'; nearest: bert-2.6b"),
        ("model_type=gpt", "model_type: 'gpt' is not among bert-1.3b, bert-2.6b"),
        ("launches_from=a100", "no cost model of that name is shipped"),
    ],
)
def test_bad_input_is_one_line(change, expected, rows, tmp_path, capsys):
    assert execute(tmp_path / "out", f"--config.rows={rows}", f"--config.{change}") in (1, 2)
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error and error.count("\n") <= 3


def test_a_type_without_a_shape_needs_one(rows, tmp_path, capsys):
    document = load_profile(rows).to_dict()
    document["types"] = {"mine": document["types"]["bert-1.3b"]}
    told_of = {
        "chip": "my chip",
        "dtype": "float16",
        "date": "2024-01-01",
        "software": {"jax": "1"},
    }
    document["measured"] = told_of | {"sequence": {"mine": 2048}}
    path = tmp_path / "mine.json"
    save_profile(path, Profile.from_dict(document))
    assert execute(tmp_path / "out", f"--config.rows={path}") == 1
    error = capsys.readouterr().err
    assert f"--config.rows={path}: no architecture 'mine'" in error
    assert "--config.own_type=mine --config.architecture.hidden=" in error
    shape = load_cost_model("v100").architecture("bert-1.3b")
    fields = (f"--config.architecture.{k}={v}" for k, v in dataclasses.asdict(shape).items() if v)
    chosen = (f"--config.rows={path}", "--config.own_type=mine", *fields)
    assert execute(tmp_path / "out", *chosen, "--config.pps=1,2,4") == 0
    profile = load_profile(tmp_path / "out" / "profile.json")
    assert profile.measured == load_profile(path).measured
    alone_s = load_profile("v100").single_device_latency_s("bert-1.3b")
    assert profile.single_device_latency_s("mine") == pytest.approx(alone_s, rel=0.02)


def test_all_types_without_a_shape_are_named(rows, tmp_path, capsys):
    assert execute(tmp_path / "out", f"--config.rows={rows}", "--config.others=a,bert-6.7b,b") == 1
    error = capsys.readouterr().err
    assert "--config.others: no architecture 'a'" in error and "(nor 'b')" in error


def test_what_the_rows_do_not_tell_is_assumed_aloud(rows):
    profile = load_profile(rows)
    silent = fit_profile.Config(rows=str(rows))
    sequence, memory = fit_profile.assumptions(silent, profile)
    assert "sequence length: taken as 2048 (bert-1.3b, bert-2.6b); --config.sequence=" in sequence
    assert "taken as 16 GiB; --config.device_gib=" in memory
    told = dataclasses.replace(silent, sequence=1024, device_gib=24.0)
    assert not fit_profile.assumptions(told, profile)
    told_of = {"chip": "C", "dtype": "float16", "date": "2024-01-01", "software": {}}
    source = Provenance(**told_of, sequence={"bert-1.3b": 512})
    known = dataclasses.replace(profile, measured=source)
    assert "taken as 2048 (bert-2.6b);" in fit_profile.assumptions(silent, known)[0]


@pytest.mark.parametrize(
    ("sources", "noise", "expected"),
    [
        (("rows", "rows", "assumed"), (0.01, 0.2), []),
        (("assumed", "rows", "rows"), (0.01, 0.02), ["1 of 3 numbers are assumed, flop_s among"]),
        (("rows", "assumed", "assumed"), (0.01, 0.02), ["2 of 3 numbers are assumed, the rows"]),
        (("rows", "rows", "rows"), (0.3, 0.21), ["by 30 % at op 1 and 21 % at op > 1: predic"]),
    ],
)
def test_a_fit_that_is_not_to_be_trusted_says_so(sources, noise, expected):
    names = ("flop_s", "launch_s", "reduce_byte_s.2")
    numbers = [{"number": n, "from": of} for n, of in zip(names, sources, strict=True)]
    lines = fit_profile.doubts(numbers, noise)
    assert len(lines) == len(expected)
    assert all(part in line for part, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize(("latency_s", "label"), [(0.004, "Latency (ms)"), (0.4, "Latency (s)")])
def test_figures_of_small_models_are_in_ms_and_what_was_not_measured_is_hollow(latency_s, label):
    rows = [
        {"model_type": "tiny", "strategy": strategy, "devices": devices, "latency_s": latency_s}
        | {"throughput_rps": 1.0, "weights_gib": 1.0}
        for strategy in sec3_figures.STRATEGIES
        for devices in (1, 2)
    ]
    figure = sec3_figures.scaling(rows)["model_parallel_latency"]
    fit_profile.in_ms(figure)
    fit_profile.hollow(figure)
    (axes,) = figure.axes
    assert axes.get_ylabel() == label
    hollow = {line.get_label() for line in axes.lines if line.get_markerfacecolor() == "white"}
    assert hollow == {"Intra-operator (extrapolated)"}
    assert hollow < {text.get_text() for text in figure.legends[0].get_texts()}
