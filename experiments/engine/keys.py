"""What determines a result, as the key that it is stored under."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beta_jax import traces
from beta_jax.dispatch import DispatchRule
from beta_jax.search import find_policy
from experiments.engine import fingerprint
from experiments.engine.files import input_path
from experiments.engine.points import Case
from experiments.engine.pool_files import read_cluster
from experiments.engine.scenarios import FILE_FIELDS, Replayed
from experiments.engine.store import digest

ROOTS = ("experiments.engine.compute", "experiments.engine.inputs")
"""The modules that compute results: what they import, and no other code, decides them."""


class Keys:
    """The key of each case; every file is read once."""

    def __init__(self) -> None:
        self._sha256 = functools.cache(_sha256)
        self._pools = functools.cache(_pools)
        self._fingerprint = functools.cache(traces.fingerprint)
        self._of = functools.cache(self._key)

    def __call__(self, case: Case) -> str:
        """A hash of all that determines a result; the bytes of files, not their names."""
        return self._of(case)

    def _key(self, case: Case) -> str:
        return digest(self.parts(case))

    def parts(self, case: Case) -> dict[str, Any]:
        """All that determines a result, by name; code and files as hashes."""
        policy, scenario = case
        fields = dataclasses.asdict(scenario)
        for name in FILE_FIELDS:
            fields[name] = None if fields[name] is None else self._sha256(input_path(fields[name]))
        if scenario.pools is None:
            del fields["pools"]
        else:
            fields["pools"] = self._pools(scenario.pools)
        if isinstance(scenario, Replayed):
            fields["trace"] = self._fingerprint(input_path(scenario.trace))
        own = [find_policy(policy).place]
        if isinstance(rule := scenario.rules.dispatch, DispatchRule):
            own_rule = [rule.name, rule.initial, str(rule.traits), rule.then_by_clock]
            fields["rules"]["dispatch"] = own_rule
            own += [rule.order] if rule.after is None else [rule.order, rule.after]
        versions: dict[str, Any] = {"code": _code()}
        if users := sorted(filter(None, map(self._users_code, own))):
            versions["users_code"] = users
        if _rounds(case):
            versions["machine"] = fingerprint.machine()
        return {"policy": policy, "scenario": fields, **versions}

    def _users_code(self, function: Callable[..., Any]) -> str | None:
        """Of a policy or a rule that is not the library's: the file that defines it."""
        while isinstance(function, functools.partial):
            function = function.func
        if function.__module__.partition(".")[0] == "beta_jax":
            return None
        source = inspect.getsourcefile(function)
        return self._sha256(Path(source)) if source and Path(source).is_file() else repr(function)


def _rounds(case: Case) -> bool:
    """Whether a result can depend on the last bit of a floating-point number.

    The published traffic is made of IEEE's own operations, and is simulated in integers.
    """
    policy, scenario = case
    sampled = scenario.rng != "legacy" or isinstance(scenario, Replayed)
    return sampled or find_policy(policy).rounds


@functools.cache
def _code() -> str:
    return fingerprint.code(ROOTS)


def _pools(path: str) -> list[Any]:
    cluster, profiles = read_cluster(input_path(path))
    return [repr(cluster), [profiles[name].checksum() for name in cluster.names]]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
