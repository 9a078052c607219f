"""What parallelism costs one request (section 3.3, figures 8 and 9): from the profile alone.

No simulation, so neither the factor on stages nor the fixed time per request is in these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from beta_jax.profiles.cost_model import CostModel, even_pieces, load_cost_model
from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.profiles.stages import balanced_cut
from beta_jax.types import GB, ParallelConfig
from experiments.engine.files import input_path
from experiments.paper.sec3.config import Config
from experiments.report.tables import Row

DEVICES = (1, 2, 4, 8)
PARTITIONED = ("bert-1.3b", "bert-2.6b")
PIPELINE, OPERATOR, REPLICATION = "inter-operator", "intra-operator", "replication"


def decomposition(profile: Profile, kind: str) -> list[Row]:
    """Figure 8: a row per way to split a model, number of devices, and part of the latency.

    Device time of one request: a pipeline's stages as if all took as long as the longest.
    """
    alone_s = profile.single_device_latency_s(kind)
    rows = []
    for devices in _devices(profile, kind):
        pipeline_s = _stages(profile, kind, ParallelConfig(1, devices))
        operator_s = sum(_stages(profile, kind, ParallelConfig(devices, 1)))
        parts = {
            PIPELINE: _pipeline_parts(pipeline_s, alone_s),
            OPERATOR: {
                "computation": alone_s / devices,
                "communication": operator_s - alone_s / devices,
            },
        }
        rows += [
            {"model_type": kind, "split": split, "devices": devices, "part": part, "seconds": s}
            for split, of in parts.items()
            for part, s in of.items()
        ]
    return rows


def _pipeline_parts(stages_s: Sequence[float], alone_s: float) -> dict[str, float]:
    communication_s = max(sum(stages_s) - alone_s, 0.0)
    uneven_s = max(len(stages_s) * max(stages_s) - communication_s - alone_s, 0.0)
    return {
        "computation": alone_s,
        "communication": communication_s,
        "uneven partition": uneven_s,
    }


def partition(model: CostModel, kinds: Sequence[str]) -> list[Row]:
    """The same parts of a pipeline for an even and a balanced cut of the model into stages.

    Pieces of a model take the time that the cost model gives them; a profile knows stages only. An
    even cut has equally many layers in each stage, and the embeddings in the first and last one.
    """
    rows = []
    for kind in kinds:
        shape, pieces_s = model.architecture(kind), model.piece_latency_s(kind)
        for devices in DEVICES:
            if devices > shape.layers:
                continue
            cuts = {
                "even": even_pieces(shape, devices),
                "balanced": balanced_cut(pieces_s, devices),
            }
            for name, cut in cuts.items():
                stages_s = model.cut_latency_s(kind, cut).tolist()
                known = {"model_type": kind, "cut": name, "devices": devices}
                pieces = "-".join(map(str, cut))
                rows += [
                    known | {"pieces": pieces, "part": part, "seconds": s}
                    for part, s in _pipeline_parts(stages_s, float(pieces_s.sum())).items()
                ]
    return rows


def scaling(profile: Profile, kind: str) -> list[Row]:
    """Figure 9: latency, highest throughput and memory of all devices' weights, per strategy."""
    rows = []
    for devices in _devices(profile, kind):
        for strategy, split, copies in (
            (PIPELINE, ParallelConfig(1, devices), 1),
            (OPERATOR, ParallelConfig(devices, 1), 1),
            (REPLICATION, ParallelConfig(1, 1), devices),
        ):
            stages_s = _stages(profile, kind, split)
            weights = profile.weight_bytes(kind, split).sum() * split.op * copies
            rows.append(
                {"model_type": kind, "strategy": strategy, "devices": devices}
                | {"latency_s": sum(stages_s), "throughput_rps": copies / max(stages_s)}
                | {"weights_gib": float(weights) / GB}
            )
    return rows


def _devices(profile: Profile, kind: str) -> list[int]:
    """Numbers of devices for which the profile has both ways to split the model, 1 among them."""
    profile.stage_latency_s(kind, ParallelConfig(1, 1))
    has = {config[:2] for config in profile.configs(kind)}
    return [n for n in DEVICES if {(1, n), (n, 1)} <= has]


def _stages(profile: Profile, kind: str, config: ParallelConfig) -> list[float]:
    return profile.stage_latency_s(kind, config).tolist()


def shown(rows: Sequence[Row]) -> list[Row]:
    """Of parts, a line per model type, way to cut and number of devices, milliseconds of each."""
    if "part" not in rows[0]:
        return [*rows]
    lines: dict[tuple[Any, ...], Row] = {}
    columns = {row["part"]: float("nan") for row in rows}
    for row in rows:
        known = {name: v for name, v in row.items() if name not in ("part", "seconds")}
        line = lines.setdefault(tuple(known.values()), known | columns)
        line[row["part"]] = 1e3 * row["seconds"]
    return list(lines.values())


def _profile(config: Config) -> Profile:
    return load_profile(input_path(config.profile))


TABLES: dict[str, Callable[[Config], list[Row]]] = {
    "decomposition": lambda config: decomposition(_profile(config), config.model_type),
    "partition": lambda _: partition(load_cost_model("v100"), PARTITIONED),
    "scaling": lambda config: scaling(_profile(config), config.model_type),
}
