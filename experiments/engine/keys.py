"""What determines a result, as the key that it is stored under."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

from beta_jax import search, traces
from beta_jax.simulator import SIMULATOR_VERSION
from experiments.engine.files import input_path
from experiments.engine.points import Case
from experiments.engine.scenarios import FILE_FIELDS, Replayed
from experiments.engine.store import digest

RECORD_VERSION = 1
"""Changes with what is stored of a result, or how it is measured."""


class Keys:
    """The key of each case; every file is read once."""

    def __init__(self) -> None:
        self._sha256 = functools.cache(_sha256)
        self._fingerprint = functools.cache(traces.fingerprint)
        self._of = functools.cache(self._key)

    def __call__(self, case: Case) -> str:
        """A hash of all that determines a result; the bytes of files, not their names."""
        return self._of(case)

    def _key(self, case: Case) -> str:
        policy, scenario = case
        fields = dataclasses.asdict(scenario)
        for name in FILE_FIELDS:
            fields[name] = None if fields[name] is None else self._sha256(input_path(fields[name]))
        if isinstance(scenario, Replayed):
            path = input_path(scenario.trace)
            fields["trace"] = self._fingerprint(path, completed=scenario.complete)
        return digest({"policy": policy, "scenario": fields, **_versions()})


def _versions() -> dict[str, int | str]:
    """What determines a result besides its case."""
    return {"record": RECORD_VERSION, "simulator": SIMULATOR_VERSION, "search": _search()}


@functools.cache
def _search() -> str:
    """The source of the policies: they improve without a version, unlike the exact simulator."""
    return digest([_sha256(path) for path in sorted(Path(search.__file__).parent.rglob("*.py"))])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
