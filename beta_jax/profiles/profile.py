"""Profiles: what each model type costs per pipeline stage at each parallel configuration.

The project's own file format is documented field by field in data/README.md. `load_profile` also
reads what `profile_import` can turn into it, so that every profile passes the one validation here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import read_bytes
from beta_jax.profiles import importers as profile_import
from beta_jax.profiles.names import nearest
from beta_jax.types import ParallelConfig

FORMAT, VERSION = "beta_jax.profile", 1

PUBLISHED_LATENCY_S: Mapping[str, float] = {"bert-103.5b": 4.6}
"""Latency, at batch size 1, of types too large for one device: Beta, OSDI 2023, Table 1.

It was measured on the minimal pipeline, and stands for the single-device latency where a profile
gives none.
"""

Stages: TypeAlias = NDArray[np.float64]  # [stage], read only


class ProfileError(ValueError):
    """A profile that is not valid, or that lacks what is asked of it."""


@dataclasses.dataclass(frozen=True)
class _Costs:
    stage_latency_s: Mapping[int, Stages]
    weight_bytes: Stages
    act_bytes: Mapping[int, Stages]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a measured profile comes from.

    date: of its last measurement, ISO 8601. software: versions by name. sequence: tokens of a
    request, by model type.
    """

    chip: str
    dtype: str
    date: str
    software: Mapping[str, str]
    sequence: Mapping[str, int]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """Stage latencies and memory per (model type, configuration); equal iff the content is equal.

    Arrays are float64 [stage] and read only; memory is per device. Asking for a type, configuration
    or batch size that is not there raises ProfileError. pools: those that it is made of, if several
    (see `of_pools`).
    """

    _costs: Mapping[str, Mapping[ParallelConfig, _Costs]]
    _reference_latency_s: Mapping[str, float]
    note: str = ""
    measured: Provenance | None = None
    pools: tuple[Profile, ...] = ()

    @classmethod
    def of_pools(cls, profiles: Sequence[Profile]) -> Profile:
        """The profiles of a cluster's pools as one, that of pool i at configurations of pool i.

        A model type may be missing in some of them. One profile is returned as it is.
        """
        if len(profiles) == 1:
            return profiles[0]
        costs: dict[str, dict[ParallelConfig, _Costs]] = {}
        reference_s: dict[str, float] = {}
        for pool, profile in enumerate(profiles):
            reference_s = {**profile._reference_latency_s, **reference_s}
            for name, configs in profile._costs.items():
                own = {config._replace(pool=pool): cost for config, cost in configs.items()}
                costs[name] = dict(sorted((costs.get(name, {}) | own).items()))
        return cls(dict(sorted(costs.items())), reference_s, pools=tuple(profiles))

    @classmethod
    def from_dict(cls, document: Any) -> Profile:
        """Build from the content of a profile file; raises ProfileError naming type and field."""
        top = _object(document, "top level", ("format", "version", "types"), ("note", "measured"))
        if (top["format"], top["version"]) != (FORMAT, VERSION):
            raise ProfileError(
                f"format {reprlib.repr(top['format'])} version {reprlib.repr(top['version'])} "
                f"is not {FORMAT!r} version {VERSION}"
            )
        note = top.get("note", "")
        if not isinstance(note, str):
            raise ProfileError(f"note: expected text, got {reprlib.repr(note)}")
        costs: dict[str, dict[ParallelConfig, _Costs]] = {}
        reference_s: dict[str, float] = {}
        for name, entry in sorted(_object(top["types"], "types").items()):
            entry = _object(entry, name, ("configs",), ("reference_latency_s",))
            if "reference_latency_s" in entry:
                value = entry["reference_latency_s"]
                reference_s[name] = _number(value, f"{name}: reference_latency_s", positive=True)
            costs[name] = _read_configs(entry["configs"], name)
        measured = _read_provenance(top["measured"]) if "measured" in top else None
        return cls(costs, reference_s, note, measured)

    def to_dict(self) -> dict[str, Any]:
        """The content of a profile file, types and configurations in sorted order.

        Raises ProfileError for one of several pools: each has a file of its own.
        """
        if self.pools:
            raise ProfileError("a profile of several pools is no file; take that of each pool")

        def by_batch(table: Mapping[int, Stages]) -> dict[str, list[float]]:
            return {str(batch): stages.tolist() for batch, stages in table.items()}

        types: dict[str, Any] = {}
        for name, configs in self._costs.items():
            types[name] = {}
            if name in self._reference_latency_s:
                types[name]["reference_latency_s"] = self._reference_latency_s[name]
            types[name]["configs"] = [
                {
                    "op": config.op,
                    "pp": config.pp,
                    "stage_latency_s": by_batch(costs.stage_latency_s),
                    "weight_bytes": costs.weight_bytes.tolist(),
                    "act_bytes": by_batch(costs.act_bytes),
                }
                for config, costs in configs.items()
            ]
        head = {"format": FORMAT, "version": VERSION, "note": self.note}
        if self.measured is not None:
            head["measured"] = dataclasses.asdict(self.measured)
        return head | {"types": types}

    @property
    def types(self) -> tuple[str, ...]:
        """The profiled model types, sorted."""
        return tuple(self._costs)

    def configs(self, type: str) -> tuple[ParallelConfig, ...]:
        """The configurations that a type is profiled at, sorted by (op, pp)."""
        return tuple(self._of_type(type))

    def __contains__(self, key: tuple[str, ParallelConfig]) -> bool:
        type, config = key
        return ParallelConfig(*config) in self._costs.get(type, {})

    def batch_sizes(self, type: str, config: ParallelConfig) -> tuple[int, ...]:
        """The batch sizes profiled there, ascending; 1 is always among them."""
        return tuple(self._at(type, config).stage_latency_s)

    def stage_latency_s(self, type: str, config: ParallelConfig, batch: int = 1) -> Stages:
        """Seconds that each stage takes for one batch, float64 [stage]; finite and > 0."""
        return self._at_batch(self._at(type, config).stage_latency_s, type, config, batch)

    def weight_bytes(self, type: str, config: ParallelConfig) -> Stages:
        """Bytes of weights on each device of each stage, float64 [stage]; finite and >= 0."""
        return self._at(type, config).weight_bytes

    def act_bytes(self, type: str, config: ParallelConfig, batch: int = 1) -> Stages:
        """Bytes of activations on each device of each stage, float64 [stage]; finite and >= 0."""
        return self._at_batch(self._at(type, config).act_bytes, type, config, batch)

    def single_device_latency_s(self, type: str) -> float:
        """Seconds for one request on one device: what SLO scales multiply (Beta, OSDI 2023, 6.1).

        The stages of (op 1, pp 1) at batch size 1, in the first pool that has them; without them
        the `reference_latency_s` that the profile gives, else the published figure. Raises
        ProfileError if there is none of these.
        """
        configs = self._of_type(type)
        alone = ParallelConfig(1, 1)
        if config := next((c for c in configs if c[:2] == alone[:2]), None):
            return float(configs[config].stage_latency_s[1].sum())
        for known in (self._reference_latency_s, PUBLISHED_LATENCY_S):
            if type in known:
                return known[type]
        raise ProfileError(
            f"no SLO can be derived for {type}: its profile has neither the configuration {alone} "
            "nor a reference_latency_s"
        )

    def with_even_pipelines(self, overhead: float) -> Profile:
        """A copy whose pipelines of single devices have even stages, `overhead` times ideal ones.

        Each of n stages takes `overhead` / n of the single device's latency (the overhead that is
        varied in section 3.3 of Beta, OSDI 2023); what it weighs stays, as does a pipeline that
        has other batch sizes than the single device. Raises ProfileError unless `overhead` > 0.
        """
        if not 0 < overhead < math.inf:
            raise ProfileError(f"a pipeline overhead is > 0 and finite, got {overhead}")
        document = self.to_dict()
        for entry in document["types"].values():
            pipelines = {row["pp"]: row for row in entry["configs"] if row["op"] == 1}
            alone = pipelines.pop(1, {"stage_latency_s": {}})["stage_latency_s"]
            for pp, row in pipelines.items():
                if row["stage_latency_s"].keys() == alone.keys():
                    row["stage_latency_s"] = {
                        batch: [overhead * latency_s / pp] * pp
                        for batch, (latency_s,) in alone.items()
                    }
        return Profile.from_dict(document)

    def checksum(self) -> str:
        """SHA-256 of the numbers (not of where they come from), the same for every file format."""
        return self._checksum

    @functools.cached_property
    def _checksum(self) -> str:
        if self.pools:
            joined = " ".join(profile.checksum() for profile in self.pools)
            return hashlib.sha256(joined.encode()).hexdigest()
        content = dataclasses.replace(self, note="", measured=None).to_dict()
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Profile) and self._checksum == other._checksum

    def __hash__(self) -> int:
        return hash(self._checksum)

    def __repr__(self) -> str:
        return f"Profile({', '.join(self.types)}; {self._checksum[:12]})"

    def _of_type(self, type: str) -> Mapping[ParallelConfig, _Costs]:
        if type not in self._costs:
            near = nearest(type, self._costs)
            known = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(self.types)}"
            raise ProfileError(f"model type {type!r} has no profile; {known}")
        return self._costs[type]

    def _at(self, type: str, config: ParallelConfig) -> _Costs:
        configs, config = self._of_type(type), ParallelConfig(*config)
        if config not in configs:
            raise ProfileError(
                f"{type} has no profile at {config}; it has {', '.join(map(str, configs))}"
            )
        return configs[config]

    def _at_batch(
        self, table: Mapping[int, Stages], type: str, config: ParallelConfig, batch: int
    ) -> Stages:
        if batch not in table:
            known = ", ".join(map(str, table))
            raise ProfileError(
                f"{type} {ParallelConfig(*config)} has no batch size {batch}; it has {known}"
            )
        return table[batch]


def load_profile(source: str | os.PathLike[str]) -> Profile:
    """Read a profile: a shipped one by its name, such as `v100`, or a file.

    A file is this project's JSON, or one of the formats `profile_import` knows. Raises ProfileError
    naming the file, the model type, the configuration and the field at fault, or the names that
    there are; OSError if the file cannot be read.
    """
    path = shipped(os.fspath(source)) or Path(source)
    try:
        if path.suffix in (".pkl", ".pickle"):
            document = profile_import.read_pickle(path)
        else:
            document = read_json(read_bytes(path))
        if isinstance(document, list):
            document = profile_import.from_rows(document)
        elif isinstance(document, dict) and "schema" in document:
            document = profile_import.from_schema_v1(document)
        return Profile.from_dict(document)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: {error}") from None


def save_profile(path: str | os.PathLike[str], profile: Profile) -> None:
    """Write a profile as JSON, one configuration to a line. Written whole or not at all."""
    document = profile.to_dict()
    lines = []
    for name, entry in document.pop("types").items():
        configs = ",\n".join(f"  {json.dumps(config)}" for config in entry.pop("configs"))
        head = "".join(f"{json.dumps(key)}: {json.dumps(value)}, " for key, value in entry.items())
        lines.append(f'{json.dumps(name)}: {{{head}"configs": [\n{configs}\n]}}')
    head = json.dumps(document)[:-1]
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(f'{head}, "types": {{\n' + ",\n".join(lines) + "\n}}\n")
    temporary.replace(path)


def shipped(name: str, kind: str = "profiles") -> Path | None:
    """The file of a shipped profile (or of `cost_models`); None for what is no name but a path.

    Raises ProfileError for a name that is not shipped, with those that are.
    """
    if not name or Path(name).name != name or Path(name).suffix or Path(name).is_file():
        return None
    # Of an installed package, or of a checkout.
    folder, checkout = Path(__file__).parent / "shipped", Path(__file__).parents[2] / "data"
    files = ((folder if folder.is_dir() else checkout) / kind).glob("*.json")
    known = {file.stem: file for file in sorted(files)}
    if name not in known:
        what = kind.replace("_", " ").removesuffix("s")
        raise ProfileError(
            f"there is no file {name!r}, and no {what} of that name is shipped; "
            f"shipped: {', '.join(known)}"
        )
    return known[name]


def read_json(text: bytes) -> Any:
    """The content of a JSON file; raises ProfileError if it is none, or has a key twice."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
            raise ProfileError(f"duplicate key {reprlib.repr(min(twice))}")
        return found

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except ProfileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"not JSON: {error}") from None


def _read_provenance(value: Any) -> Provenance:
    texts = ("chip", "dtype", "date")
    fields = _object(value, "measured", (*texts, "software", "sequence"))
    software = _object(fields["software"], "measured: software")
    sequence = _object(fields["sequence"], "measured: sequence")
    for where, text in [*((name, fields[name]) for name in texts), *software.items()]:
        if not isinstance(text, str):
            raise ProfileError(f"measured: {where}: expected text, got {reprlib.repr(text)}")
    for type, tokens in sequence.items():
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
            raise ProfileError(
                f"measured: sequence: {type}: expected tokens >= 1, got {reprlib.repr(tokens)}"
            )
    return Provenance(**fields)


def _read_configs(rows: Any, name: str) -> dict[ParallelConfig, _Costs]:
    if not isinstance(rows, list) or not rows:
        raise ProfileError(f"{name}: configs: expected a list that is not empty")
    found: dict[ParallelConfig, _Costs] = {}
    for number, row in enumerate(rows):
        fields = ("op", "pp", "stage_latency_s", "weight_bytes", "act_bytes")
        where = f"{name}: configs[{number}]"
        if isinstance(row, dict) and "op" in row and "pp" in row:
            for degree in ("op", "pp"):
                value = row[degree]
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    raise ProfileError(
                        f"{where}: {degree} must be a whole number >= 1, got {reprlib.repr(value)}"
                    )
            where = f"{name} {ParallelConfig(row['op'], row['pp'])}"
        row = _object(row, where, fields)
        config = ParallelConfig(row["op"], row["pp"])
        if config in found:
            raise ProfileError(f"{where}: given twice")
        latency = _by_batch(row["stage_latency_s"], config, f"{where}: stage_latency_s", True)
        act = _by_batch(row["act_bytes"], config, f"{where}: act_bytes", False)
        if act.keys() != latency.keys():
            raise ProfileError(
                f"{where}: act_bytes: has batch sizes {list(act)}, stage_latency_s {list(latency)}"
            )
        weight = _per_stage(row["weight_bytes"], config, f"{where}: weight_bytes", False)
        found[config] = _Costs(latency, weight, act)
    return dict(sorted(found.items()))


def _by_batch(table: Any, config: ParallelConfig, where: str, positive: bool) -> dict[int, Stages]:
    table = _object(table, where)
    for key in table:
        if not (key.isascii() and key.isdigit() and len(key) < 10 and not key.startswith("0")):
            raise ProfileError(
                f"{where}: expected batch sizes such as '1' as keys, got {reprlib.repr(key)}"
            )
    if "1" not in table:
        raise ProfileError(f"{where}: batch 1 is missing")
    return {
        batch: _per_stage(table[str(batch)], config, f"{where}, batch {batch}", positive)
        for batch in sorted(map(int, table))
    }


def _per_stage(values: Any, config: ParallelConfig, where: str, positive: bool) -> Stages:
    if not isinstance(values, list):
        raise ProfileError(f"{where}: expected a list of numbers, got {reprlib.repr(values)}")
    if len(values) != config.pp:
        raise ProfileError(f"{where}: {len(values)} stages given, pp is {config.pp}")
    stages = np.array(
        [_number(value, f"{where}, stage {k}", positive) for k, value in enumerate(values)],
        np.float64,
    )
    stages.setflags(write=False)
    return stages


def _number(value: Any, where: str, positive: bool) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ProfileError(f"{where}: expected a number, got {reprlib.repr(value)}")
    number = float(value) if abs(value) <= sys.float_info.max else math.nan
    if math.isnan(number) or number < 0 or (positive and number == 0):
        bound = "> 0" if positive else ">= 0"
        raise ProfileError(f"{where}: must be finite and {bound}, got {reprlib.repr(value)}")
    return number


def _object(
    value: Any, where: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A JSON object that is not empty; with `required`, it has these keys and no unknown ones."""
    if not isinstance(value, dict) or not value or not all(isinstance(key, str) for key in value):
        raise ProfileError(
            f"{where}: expected an object that is not empty, got {reprlib.repr(value)}"
        )
    if missing := [key for key in required if key not in value]:
        raise ProfileError(f"{where}: {missing[0]} is missing")
    known = (*required, *optional)
    if required and (unknown := [key for key in value if key not in known]):
        raise ProfileError(
            f"{where}: unknown key {reprlib.repr(unknown[0])}; known: {', '.join(known)}"
        )
    return value
