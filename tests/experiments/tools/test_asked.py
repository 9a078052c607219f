"""What is asked of models and devices is doubted before anything is computed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

import run
from beta_jax import load_profile
from beta_jax.placement.problem import Problem, make_models
from beta_jax.profiles.profile import Provenance
from beta_jax.types import GB, Cluster, Rules
from experiments.tools import asked


def problem(slo_scale: float, types=("bert-1.3b", "bert-2.6b"), **rules) -> Problem:
    profile = load_profile("v100")
    models = make_models(types, profile, slo_scale=slo_scale)
    return Problem(models, Cluster(1, 13 * GB), profile, Rules(**rules))


@pytest.mark.parametrize("slo_scale", [1.0, 1.2])
def test_an_slo_of_the_service_alone_needs_the_overheads_to_be_none(slo_scale):
    rules = {"stage_overhead": 0.0, "request_overhead_s": 0.0}
    assert asked.too_tight(problem(slo_scale, **rules)) == ""
    assert asked.too_tight(problem(slo_scale, request_overhead_s=10.0)) != ""


def test_all_or_some_models_without_hope():
    none = problem(0.5)
    assert asked.none_in_time(none)
    line = asked.too_tight(none)
    assert "the SLO of bert-1.3b-0, bert-2.6b-1 (" in line
    assert "0.011 s of it request overhead" in line
    easy = dataclasses.replace(none.models[0], slo_s=9.0)
    some = dataclasses.replace(none, models=(easy, none.models[1]))
    assert not asked.none_in_time(some)
    assert "the SLO of bert-2.6b-1 (" in asked.too_tight(some)


def test_memory_of_another_chip_is_doubted():
    profile = load_profile("v100")
    told_of = {"dtype": "float16", "date": "2024-01-01", "software": {}, "sequence": {}}
    h100 = dataclasses.replace(profile, measured=Provenance(chip="NVIDIA H100", **told_of))
    assert "profile is of NVIDIA H100: --config.memory_gib=" in asked.doubted_memory(h100, 13.0)
    v100 = dataclasses.replace(profile, measured=Provenance(chip="Tesla V100", **told_of))
    for sound, gib in ((h100, 70.0), (h100, None), (v100, 13.0), (profile, 13.0)):
        assert asked.doubted_memory(sound, gib) == ""


def execute(out: Path, *arguments: str) -> int:
    return run.main(["run.py", f"--out_dir={out}", *arguments], time.perf_counter())


def test_quickstart_says_why_nothing_is_in_time_and_claims_no_optimum(tmp_path, capsys):
    chosen = ("--config=quickstart", "--config.slo_scale=0.01", "--config.policies=sr-greedy")
    assert execute(tmp_path, *chosen) == 0
    printed = capsys.readouterr()
    assert "none of its requests can be in time" in printed.err
    assert "serves more in time" not in printed.out


@pytest.mark.parametrize("config", ["quickstart", "plan"])
def test_types_that_the_profile_lacks_name_the_field(config, tmp_path, capsys):
    assert execute(tmp_path, f"--config={config}", "--config.model_types=mine") == 1
    error = capsys.readouterr().err
    assert "has no type mine: --config.model_types= takes" in error and "bert-1.3b" in error
    assert error.count("\n") <= 3
