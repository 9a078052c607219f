"""Every command and script of docs/profiling.md works as it stands there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from beta_jax import load_profile
from beta_jax.profiles.architectures import ARCHITECTURES

import documents
from bench import Bench

PAGE = "docs/profiling.md"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_and_the_scripts(elsewhere, monkeypatch):
    """On devices that take as long as is said, with few layers; virtual ones are measured."""
    bench = Bench()
    bench.cost_s = {part: cost_s / 1000 for part, cost_s in bench.cost_s.items()}
    bench.install(monkeypatch)
    for name, shape in ARCHITECTURES.items():
        monkeypatch.setitem(ARCHITECTURES, name, dataclasses.replace(shape, layers=4))
    printed = documents.walk(PAGE)
    kinds = [block.kind for block in documents.blocks(PAGE)]
    assert kinds.count("command") == 5
    profile = load_profile("results/profile/profile.json")
    assert profile.types == ("bert-1.3b", "moe-2.4b")
    assert load_profile("results/mine/profile.json").measured.sequence == {"mine": 1024}
    assert load_profile("mine.json").configs("mine")[-1].pp == 4
    # Stages of 6.5 and 5 ms; a request every 10.64 ms, 1.637 times the longest.
    [_, compared] = [text for text, kind in zip(printed, kinds, strict=True) if kind == "python"]
    assert compared.startswith("stages 11.5 ms, the longest 6.5 ms\n")
    assert "--config.rules.stage_overhead=0.3183\n" in compared
    assert "--config.rules.request_overhead_s=0.0027\n" in compared
    _check_virtual_devices()


def _check_virtual_devices() -> None:
    """The only ones that are really measured here."""
    profile = load_profile("results/virtual/profile.json")
    assert [config[:2] for config in profile.configs("tiny")] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    weights = [profile.weight_bytes("tiny", config).sum() for config in profile.configs("tiny")]
    assert weights[0] == weights[1] and weights[2] == weights[3]
    assert 0.5 < weights[2] / weights[0] < 0.52
