"""Every command and script of docs/profiling.md works as it stands there."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run
from beta_jax import load_profile
from beta_jax.profiles.architectures import ARCHITECTURES

import documents
from bench import Bench

PAGE = "docs/profiling.md"


def commands() -> list[list[str]]:
    """As words; those of one command on several lines together."""
    text = (documents.ROOT / PAGE).read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    (\S.*run\.py.*)$", text, re.MULTILINE)]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_and_the_scripts(elsewhere, monkeypatch, capsys):
    """On devices that take as long as is said, with models of few layers."""
    bench = Bench()
    bench.cost_s = {part: cost_s / 1000 for part, cost_s in bench.cost_s.items()}
    bench.install(monkeypatch)
    for name, shape in ARCHITECTURES.items():
        monkeypatch.setitem(ARCHITECTURES, name, dataclasses.replace(shape, layers=4))
    ordinary = [words for words in commands() if words[0] == ".venv/bin/python"]
    assert len(ordinary) == 4
    for words in ordinary:
        assert run.main(words[1:], time.perf_counter()) == 0, capsys.readouterr().err
    profile = load_profile("results/profile/profile.json")
    assert profile.types == ("bert-1.3b", "moe-2.4b")
    assert load_profile("results/mine/profile.json").measured.sequence == {"mine": 1024}
    text = (documents.ROOT / PAGE).read_text()
    measures, compares = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(measures, PAGE, "exec"), {})
    assert load_profile("mine.json").configs("mine")[-1].pp == 4
    capsys.readouterr()
    exec(compile(compares, PAGE, "exec"), {})
    # Stages of 6.5 and 5 ms; a request every 10.64 ms, 1.637 times the longest.
    printed = capsys.readouterr().out
    assert printed.startswith("stages 11.5 ms, the longest 6.5 ms\n")
    assert "--config.rules.stage_overhead=0.3183\n" in printed
    assert "--config.rules.request_overhead_s=0.0027\n" in printed


def test_the_command_for_virtual_devices(elsewhere):
    """The only one that really measures something here."""
    (words,) = [words for words in commands() if words[0] != ".venv/bin/python"]
    setting, python, program, *arguments = words
    name, _, value = setting.partition("=")
    assert python == ".venv/bin/python"
    done = subprocess.run(
        [sys.executable, documents.ROOT / program, *arguments],
        env=os.environ | {name: value, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    profile = load_profile("results/virtual/profile.json")
    assert [config[:2] for config in profile.configs("tiny")] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    weights = [profile.weight_bytes("tiny", config).sum() for config in profile.configs("tiny")]
    assert weights[0] == weights[1] and weights[2] == weights[3]
    assert 0.5 < weights[2] / weights[0] < 0.52
