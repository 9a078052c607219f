"""What measuring found: a row per span of layers, the stages made of them, and a profile of these.

Without JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

from beta_jax.profiles.profile import FORMAT, VERSION, Profile, ProfileError

Cut = Literal["balanced", "even"]
"""Where pipelines are cut: so that the longest stage is shortest, or as many blocks to each."""
CUTS: tuple[Cut, ...] = ("balanced", "even")


class Row(TypedDict):
    """A span of layers at a batch size, as JSON.

    median_s, low_s, high_s: median and quartiles of the latency, seconds; 0 where it does not fit.
    weight_bytes, act_bytes: on each device; activations are the most that one part of the span
    takes, by the memory analysis of its compiled program. misfit: why it could not be run, or "".
    date: when it was measured, UTC.
    """

    median_s: float
    low_s: float
    high_s: float
    weight_bytes: int
    act_bytes: int
    misfit: str
    date: str


class Stage(NamedTuple):
    """A stage of a pipeline at a batch size; layers `begin` up to and without `end`."""

    type: str
    op: int
    pp: int
    cut: Cut
    batch: int
    stage: int
    begin: int
    end: int
    row: Row


@dataclasses.dataclass(frozen=True)
class Measured:
    """All stages that were asked for, those that do not fit among them, and where they were run.

    layer_latency_s: of each layer at batch size 1, by type and op; without those that do not fit.
    """

    stages: Sequence[Stage]
    layer_latency_s: Mapping[tuple[str, int], Sequence[float]]
    sequence: Mapping[str, int]  # tokens of a request, by type
    chip: str
    dtype: str
    software: Mapping[str, str]  # versions, by name

    @property
    def misfits(self) -> list[str]:
        """A line for each pipeline that does not fit, from which batch size on and why."""
        found: dict[tuple[Any, ...], str] = {}
        for stage in self.stages:
            if stage.row["misfit"]:
                found.setdefault(
                    stage[:4],
                    f"{stage.type} (1,{stage.op},{stage.pp}), {stage.cut}: does not fit from batch "
                    f"size {stage.batch} on; stage {stage.stage}: {stage.row['misfit']}",
                )
        return list(found.values())

    def profile(self, cut: Cut = "balanced") -> Profile:
        """The configurations and batch sizes that fit, as a profile.

        A type that does not fit one device gets the sum of its layers' latencies as the latency
        that SLO scales multiply, where these were measured on one device. Raises ProfileError if
        nothing fits.
        """
        types: dict[str, Any] = {}
        for type in self.sequence:
            configs = self._configs(type, cut)
            if not configs:
                continue
            types[type] = {"configs": configs}
            alone = self.layer_latency_s.get((type, 1))
            if alone and not any(c["op"] == c["pp"] == 1 for c in configs):
                types[type]["reference_latency_s"] = sum(alone)
        if not types:
            raise ProfileError("nothing that was asked for fits the devices: no profile to write")
        profiled = [stage for stage in self.stages if stage.type in types]
        measured = {
            "chip": self.chip,
            "dtype": self.dtype,
            "date": max(stage.row["date"] for stage in profiled),
            "software": dict(self.software),
            "sequence": {type: self.sequence[type] for type in types},
        }
        note = f"Measured on {self.chip}, random weights in {self.dtype}, {cut} pipelines."
        head = {"format": FORMAT, "version": VERSION, "note": note, "measured": measured}
        return Profile.from_dict(head | {"types": types})

    def _configs(self, type: str, cut: Cut) -> list[dict[str, Any]]:
        pipelines: dict[tuple[int, int], dict[int, list[Row]]] = {}
        for stage in self.stages:
            if (stage.type, stage.cut) == (type, cut):
                by_batch = pipelines.setdefault((stage.op, stage.pp), {})
                by_batch.setdefault(stage.batch, []).append(stage.row)
        configs = []
        for (op, pp), by_batch in pipelines.items():
            fit = {b: rows for b, rows in by_batch.items() if not any(r["misfit"] for r in rows)}
            if 1 in fit:  # or no larger batch fits either
                configs.append(
                    {
                        "op": op,
                        "pp": pp,
                        "stage_latency_s": _by_batch(fit, "median_s"),
                        "weight_bytes": [row["weight_bytes"] for row in fit[1]],
                        "act_bytes": _by_batch(fit, "act_bytes"),
                    }
                )
        return configs


def _by_batch(rows: Mapping[int, Sequence[Row]], field: str) -> dict[str, list[float]]:
    return {str(batch): [row[field] for row in own] for batch, own in rows.items()}  # type: ignore[literal-required]
