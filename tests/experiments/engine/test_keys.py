"""A user's own policies and rules are part of what a result is stored under."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from beta_jax import POLICIES, Policy, Rules
from configs import sec6_3
from experiments.engine.keys import Keys
from experiments.engine.scenarios import scenario_of

SCENARIO = scenario_of(sec6_3.CONFIG)
OWN = """
from beta_jax import DispatchRule

def place(instances, *, tries=3):
    return []

RULE = DispatchRule("own", order=lambda groups: groups.clock + 1)
"""


def load(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("own", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def key(policy: str, rules: Rules | None = None) -> str:
    return Keys()((policy, dataclasses.replace(SCENARIO, rules=rules or Rules())))


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.delitem(POLICIES, "own", raising=False)
    yield tmp_path / "own.py"
    POLICIES.pop("own", None)
    sys.modules.pop("own", None)


def test_the_code_of_a_policy_counts(path):
    keys = []
    for text in (OWN, OWN, OWN.replace("tries=3", "tries=4")):
        POLICIES["own"] = Policy(load(path, text).place)
        keys.append(key("own"))
    assert keys[0] == keys[1] != keys[2]
    assert key("mp-search") not in keys


def test_the_code_of_a_dispatch_rule_counts(path):
    keys = []
    for text in (OWN, OWN, OWN.replace("+ 1", "+ 2")):
        keys.append(key("mp-search", Rules(dispatch=load(path, text).RULE)))
    assert keys[0] == keys[1] != keys[2]
    assert key("mp-search") not in keys


def test_rules_by_name_count():
    keys = {key("mp-search", Rules(dispatch=name)) for name in ("round_robin", "earliest_free")}
    assert len(keys) == 2
