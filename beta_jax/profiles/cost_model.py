"""What a model costs on a chip, from its shape and a few numbers that were fitted to measurements.

    python -m beta_jax.profiles.cost_model v100 --out data/profiles/v100.json

A model is a chain of pieces: the input embedding, attention and feed-forward network of each
block, the output embedding. A stage is a span of them. For operator degree n and batch size b

    stage = b / n * work + launches + b * 2 (n - 1) / n * reduced + hand-over

* work: floating-point operations and attention scores, times what each of them takes on the chip,
  times a factor of the model type;
* launches: of a block's kernels. This part neither grows with the batch nor shrinks with n;
* reduced: what devices that share a block add up, bytes, times what a byte takes for that n and a
  factor of the model type;
* hand-over: fixed, and per byte; not after the last stage.

Where each stage begins (uneven partition) is known for the pipelines that were measured, and
follows a rule for the others. Compilers do not always divide the weights among operator-parallel
devices: one stage of a pipeline keeps a share of its weights on all of them, if they have the room,
and exchanges less (`CostModel.replicated`).

`calibration` fits these numbers to measured rows; the fitted ones of two chips are in
`data/cost_models`, and shipped profiles are made of them by the command above.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import read_bytes
from beta_jax.profiles.architectures import Architecture, find_architecture
from beta_jax.profiles.profile import (
    FORMAT,
    PUBLISHED_LATENCY_S,
    VERSION,
    Profile,
    ProfileError,
    read_json,
    save_profile,
    shipped,
)
from beta_jax.profiles.stages import Cut, balanced_cut, even_cut
from beta_jax.types import GB, ParallelConfig

OPS, PPS, BATCHES = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16)
"""What the shipped profiles have."""
MODEL_FORMAT, MODEL_VERSION = "beta_jax.cost_model", 1
WEIGHTS, WORK, LAUNCHES, REDUCED = 0, slice(1, 6), slice(6, 8), 8
"""Columns of `pieces`."""


class Prior(NamedTuple):
    """What is assumed of a number before anything is measured: times or over exp(`spread`)."""

    value: float
    spread: float
    meaning: str


CHIP = {
    "flop_s": Prior(1e-14, 1.0, "s per floating-point operation of dense matrices"),
    "score_flop": Prior(1000.0, 1.0, "operations that an attention score takes as long as"),
    "expert_flop": Prior(1.0, 1.5, "operations that one of an expert takes as long as"),
    "embedding_flop": Prior(0.5, 1.0, "the same of the input embedding, as a matrix product"),
    "output_flop": Prior(1.0, 0.5, "the same of the output embedding"),
    "launch_s": Prior(5e-4, 1.0, "s of a block, whatever the batch size and operator degree"),
    "expert_launch": Prior(1.0, 0.7, "so many times that for a block of a mixture of experts"),
    "handover_s": Prior(1e-3, 1.0, "s to hand over between two stages"),
    "handover_byte_s": Prior(1e-10, 1.5, "s more per byte handed over"),
    "kept": Prior(0.5, 0.7, "share of what a replicated block still exchanges"),
}
"""Numbers of a chip, in the order of the fit."""
REDUCE = Prior(1e-10, 1.5, "s per byte added up over so many devices")
NEXT_REDUCE = 0.3
"""Of the next operator degree: the same, times or over exp(this)."""
TYPE = {
    "type": Prior(1.0, 0.2, "factor on all that the type computes and exchanges"),
    "communication": Prior(1.0, 0.2, "another factor on what it exchanges between such devices"),
}
MIXTURE = {
    "type": TYPE["type"]._replace(value=3.0, spread=1.5),
    "communication": TYPE["communication"]._replace(spread=0.7),
}
"""Of mixtures of experts: the published latencies do not follow from their shapes."""


def number_prior(name: str, architecture: Architecture | None = None) -> Prior:
    """What is assumed of the number `name`; architecture: of the type whose factor it is."""
    kind = name.partition(".")[0]
    if kind in CHIP:
        return CHIP[kind]
    if architecture is None:
        return REDUCE
    return (MIXTURE if architecture.experts else TYPE)[kind]


class Estimate(NamedTuple):
    """A fitted number, its relative standard error, and whether the rows told (else the prior)."""

    value: float
    error: float
    measured: bool


@functools.lru_cache
def pieces(architecture: Architecture) -> NDArray[np.float64]:
    """Input embedding, attention and feed-forward network of each block, output embedding.

    Of each: weights (values); operations of dense matrices, attention scores, operations of
    experts, of the input and of the output embedding, for one request; launched blocks, dense ones
    and of a mixture; values added up over operator-parallel devices. float64 [piece, 9].
    """
    a = architecture
    causal = a.block == "llama"
    answered = 1 if causal else a.sequence
    scores = a.heads * a.sequence**2 / (2 if causal else 1)
    table, one_hot = a.vocabulary * a.hidden, 2 * a.sequence * a.hidden * a.vocabulary
    rows: list[list[float]] = [[table, 0, 0, 0, one_hot, 0, 0, 0, 0]]
    for layer in range(a.layers):
        part = a.parts(layer)[-1]
        mixed = part == "experts"
        sizes = {name: weight.size for name, weight in a.weights(part).items()}
        feeding = {"norm_feed_forward", "norm_feed_forward_bias", "router"}
        feeding |= {name for name in sizes if name.split("_")[0] in ("up", "down", "gate")}
        feed = sum(size for name, size in sizes.items() if name in feeding)
        attend = sum(sizes.values()) - feed
        flop = 2 * a.sequence * attend + 4 * scores * a.head_size
        used = feed * (a.experts_per_token / a.experts if mixed else 1)
        launch = [0.0, 0.5] if mixed else [0.5, 0.0]
        reduced = a.sequence * a.hidden
        rows.append([attend, flop, scores, 0, 0, 0, *launch, reduced])
        work = [0, 0, 2 * a.sequence * used] if mixed else [2 * a.sequence * used, 0, 0]
        rows.append([feed, *work, 0, 0, *launch, reduced])
    output = [table, 0, 0, 0, 0, 2 * answered * table, 0, 0, 0]
    found = np.array([*rows, output], np.float64)
    found.setflags(write=False)
    return found


def even_pieces(architecture: Architecture, num_stages: int) -> Cut:
    """Equally many layers to a stage; the embeddings go with the first and the last one.

    Raises ValueError for fewer layers than stages.
    """
    cut = [2 * layers for layers in even_cut(architecture.layers, num_stages)]
    cut[0] += 1
    cut[-1] += 1
    return tuple(cut)


class Case(NamedTuple):
    """A model type in a configuration, with a batch size."""

    type: str
    config: ParallelConfig
    batch: int


class Cases(NamedTuple):
    """Cases as arrays [case, stage, ...], padded to the most stages; see `latency_s`."""

    work: Any
    launches: Any
    reduced: Any
    handed: Any
    replicated: Any
    is_stage: Any
    op: Any
    batch: Any
    of_type: Any
    communication: Any
    reduce: Any


def latency_s(xp: ModuleType, logs: Any, cases: Cases) -> Any:
    """Seconds of each stage, [case, stage]; 0 where there is none.

    xp: `numpy` or `jax.numpy`. logs: natural logarithms of the numbers, those of `CHIP` first;
    `of_type`, `communication` and `reduce` are the places of the others.
    """
    chip = dict(zip(CHIP, xp.exp(logs[: len(CHIP)]), strict=True))
    factor, traffic, byte_s = (
        xp.exp(logs[at])[:, None] for at in (cases.of_type, cases.communication, cases.reduce)
    )
    prices = xp.stack([xp.ones(()), *(chip[name] for name in [*CHIP][1:5])])
    work = factor * chip["flop_s"] * (cases.work @ prices) * cases.batch / cases.op
    launch = chip["launch_s"] * (cases.launches @ xp.stack([xp.ones(()), chip["expert_launch"]]))
    exchanged = 1 - cases.replicated * (1 - chip["kept"])
    reduce = factor * traffic * byte_s * cases.reduced * exchanged * cases.batch
    handed_s = chip["handover_s"] + chip["handover_byte_s"] * factor * cases.handed * cases.batch
    return cases.is_stage * (work + launch + reduce + xp.where(cases.handed > 0, handed_s, 0.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostModel:
    """The fitted numbers of a chip, and what it makes of model types.

    numbers: those of `CHIP`, then `reduce_byte_s.<op>`, `type.<type>` and `communication.<type>`.
    cuts: pieces of each stage, by type and number of stages, where they were measured.
    replicated: share of its weights that the stage in the middle keeps on all its operator-parallel
    devices, by kind of model (`dense`, `experts`) and degree; larger degrees have that of the
    largest one that is given. activation: what a request takes over three copies of hidden states
    and attention scores, by type. device_gib: memory of a device. sequence: tokens of a
    request, where it is not the architecture's own. bytes_per_value: of weights
    and activations. shapes: of types that `architectures` lacks.
    """

    numbers: Mapping[str, Estimate]
    cuts: Mapping[str, Mapping[int, Cut]]
    replicated: Mapping[str, Mapping[int, float]]
    activation: Mapping[str, float]
    device_gib: float
    sequence: int | None = None
    bytes_per_value: int = 2
    shapes: Mapping[str, Architecture] = dataclasses.field(default_factory=dict)
    note: str = ""
    _rule_cuts: dict[tuple[str, int], Cut] = dataclasses.field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def types(self) -> tuple[str, ...]:
        """The model types that have a factor, sorted."""
        return tuple(sorted(n.partition(".")[2] for n in self.numbers if n.startswith("type.")))

    def architecture(self, type: str) -> Architecture:
        """Raises ValueError naming the nearest types if its shape is not known."""
        own = self.shapes[type] if type in self.shapes else find_architecture(type)
        return dataclasses.replace(own, sequence=self.sequence or own.sequence)

    @functools.cached_property
    def logs(self) -> NDArray[np.float64]:
        return np.log([estimate.value for estimate in self.numbers.values()])

    def cut(self, type: str, num_stages: int) -> Cut:
        """Pieces of each stage.

        As measured; else even if all that was measured of this type (of all types, if nothing was
        of this one) is even; else, or where there are more stages than layers, the cut whose
        longest stage is shortest. Raises ValueError for fewer pieces than stages.
        """
        if num_stages in self.cuts.get(type, {}):
            return self.cuts[type][num_stages]
        key = type, num_stages
        if key not in self._rule_cuts:
            self._rule_cuts[key] = self._cut_by_rule(type, num_stages)
        return self._rule_cuts[key]

    def _cut_by_rule(self, type: str, num_stages: int) -> Cut:
        measured = {type: self.cuts[type]} if self.cuts.get(type) else self.cuts
        even = all(
            cut == even_pieces(self.architecture(name), stages)
            for name, cuts in measured.items()
            for stages, cut in cuts.items()
        )
        if even and num_stages <= self.architecture(type).layers:
            return even_pieces(self.architecture(type), num_stages)
        return balanced_cut(self.piece_latency_s(type), num_stages)

    def piece_latency_s(self, type: str) -> NDArray[np.float64]:
        """Seconds of each piece for one request on one device, float64 [piece]."""
        each = (1,) * len(pieces(self.architecture(type)))
        cases = self._arrays([Case(type, ParallelConfig(1, len(each)), 1)], [each])
        return latency_s(np, self.logs, cases._replace(handed=np.zeros_like(cases.handed)))[0]

    def cut_latency_s(self, type: str, cut: Cut) -> NDArray[np.float64]:
        """Seconds of each stage of a pipeline of single devices that is cut so, float64 [stage]."""
        case = Case(type, ParallelConfig(1, len(cut)), 1)
        return latency_s(np, self.logs, self._arrays([case], [cut]))[0]

    def stage_weight_bytes(self, type: str, config: ParallelConfig) -> NDArray[np.float64]:
        """Bytes of weights on the fullest device of each stage, float64 [stage]."""
        whole = self._whole_bytes(type, self.cut(type, config.pp))
        kept = self._replicated(type, config, whole)
        return whole * (kept + (1 - kept) / config.op)

    def stage_latency_s(self, type: str, config: ParallelConfig, batch: int) -> NDArray[np.float64]:
        """Seconds of each stage, float64 [stage]."""
        return latency_s(np, self.logs, self.cases([Case(type, config, batch)]))[0]

    def act_bytes(self, type: str, config: ParallelConfig, batch: int) -> float:
        """Bytes of activations on each device."""
        scale = self.activation.get(type, 1.0)
        shape = self.architecture(type)
        # Three copies of a token's hidden state and of the attention scores.
        values = 3 * shape.sequence * (shape.hidden + shape.heads * shape.sequence)
        return scale * batch * self.bytes_per_value * values / config.op

    def cases(self, cases: Sequence[Case]) -> Cases:
        """Raises ValueError for a type without an architecture."""
        return self._arrays(cases, [self.cut(case.type, case.config.pp) for case in cases])

    def _whole_bytes(self, type: str, cut: Cut) -> NDArray[np.float64]:
        return self.bytes_per_value * _sums(pieces(self.architecture(type))[:, WEIGHTS], cut)

    def _replicated(
        self, type: str, config: ParallelConfig, whole_bytes: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of its weights that each stage keeps on all its devices, [stage]."""
        shares = np.zeros(config.pp)
        known = self.replicated.get(kind_of(self.architecture(type)), {})
        at = max((op for op in known if op <= config.op), default=0)
        if config.op > 1 and config.pp > 1 and at:
            middle, share = config.pp // 2, known[at]
            bytes_there = whole_bytes[middle] * (share + (1 - share) / config.op)
            shares[middle] = share if bytes_there <= self.device_gib * GB else 0.0
        return shares

    def _arrays(self, cases: Sequence[Case], cuts: Sequence[Cut]) -> Cases:
        longest = max(map(len, cuts))
        places = {name: place for place, name in enumerate(self.numbers)}
        columns: dict[str, list[Any]] = {name: [] for name in Cases._fields}
        for (type, config, batch), cut in zip(cases, cuts, strict=True):
            architecture = self.architecture(type)
            features = _sums(pieces(architecture), cut)
            whole = self.bytes_per_value * features[:, WEIGHTS]
            handed = self.bytes_per_value * architecture.sequence * architecture.hidden
            ring = 2 * (config.op - 1) / config.op
            row = {
                "work": features[:, WORK],
                "launches": features[:, LAUNCHES],
                "reduced": ring * self.bytes_per_value * features[:, REDUCED],
                "handed": np.r_[np.full(len(cut) - 1, handed), 0.0],
                "replicated": self._replicated(type, config, whole),
                "is_stage": np.ones(len(cut)),
            }
            for name, values in row.items():
                padding = [(0, longest - len(cut)), *[(0, 0)] * (values.ndim - 1)]
                columns[name].append(np.pad(values, padding))
            columns["op"].append([config.op])
            columns["batch"].append([batch])
            columns["of_type"].append(places[f"type.{type}"])
            columns["communication"].append(places[f"communication.{type}"])
            columns["reduce"].append(places.get(f"reduce_byte_s.{config.op}", 0))
        return Cases(**{name: np.array(values) for name, values in columns.items()})

    def profile(
        self,
        types: Iterable[str],
        ops: Sequence[int] = OPS,
        pps: Sequence[int] = PPS,
        batches: Sequence[int] = BATCHES,
    ) -> Profile:
        """What the model makes of types, wherever a device can hold the weights.

        Degrees that were not fitted are left out, and pipelines of more stages than pieces. Raises
        ValueError for a type without an architecture, or of which nothing fits.
        """
        entries: dict[str, Any] = {}
        for type in types:
            configs = []
            for op, pp in itertools.product(ops, pps):
                config = ParallelConfig(op, pp)
                known = op == 1 or f"reduce_byte_s.{op}" in self.numbers
                if not known or pp > len(pieces(self.architecture(type))):
                    continue
                weights = self.stage_weight_bytes(type, config)
                if weights.max() > self.device_gib * GB:
                    continue
                row: dict[str, Any] = {"op": op, "pp": pp, "stage_latency_s": {}, "act_bytes": {}}
                row["weight_bytes"] = np.round(weights).tolist()
                for batch in batches:
                    stages_s = self.stage_latency_s(type, config, batch)
                    row["stage_latency_s"][str(batch)] = np.round(stages_s, 7).tolist()
                    row["act_bytes"][str(batch)] = [
                        float(round(self.act_bytes(type, config, batch)))
                    ] * pp
                configs.append(row)
            if not configs:
                raise ValueError(f"{type} fits no number of devices of {self.device_gib:g} GiB")
            entries[type] = {"configs": configs}
            if not any(row["op"] == row["pp"] == 1 for row in configs):
                alone_s = self.stage_latency_s(type, ParallelConfig(1, 1), 1).sum()
                alone_s = PUBLISHED_LATENCY_S.get(type, round(float(alone_s), 7))
                entries[type]["reference_latency_s"] = alone_s
        document = {"format": FORMAT, "version": VERSION, "note": self.note, "types": entries}
        return Profile.from_dict(document)

    def to_json(self) -> str:
        """The content of a file of `data/cost_models`, a number to a line."""
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(estimate._asdict())}"
            for name, estimate in self.numbers.items()
        )
        cuts = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps({str(n): cut for n, cut in cuts.items()})}"
            for name, cuts in self.cuts.items()
        )
        others = {
            "format": MODEL_FORMAT,
            "version": MODEL_VERSION,
            "note": self.note,
            "device_gib": self.device_gib,
            "sequence": self.sequence,
            "bytes_per_value": self.bytes_per_value,
            "shapes": {name: dataclasses.asdict(shape) for name, shape in self.shapes.items()},
            "replicated": {
                kind: {str(op): share for op, share in shares.items()}
                for kind, shares in self.replicated.items()
            },
            "activation": dict(self.activation),
        }
        head = ",\n".join(
            f"{json.dumps(key)}: {json.dumps(value)}" for key, value in others.items()
        )
        return f'{{{head},\n"cuts": {{\n{cuts}\n}},\n"numbers": {{\n{lines}\n}}}}\n'


def load_cost_model(source: str | Path) -> CostModel:
    """A fitted model: a shipped one by its name, such as `v100`, or a file.

    Raises ProfileError naming the file and what is wrong; OSError if it cannot be read.
    """
    path = shipped(str(source), "cost_models") or Path(source)
    try:
        document = read_json(read_bytes(path))
        if (document["format"], document["version"]) != (MODEL_FORMAT, MODEL_VERSION):
            raise ProfileError(f"not {MODEL_FORMAT!r} version {MODEL_VERSION}")
        by_number = {
            name: {kind: {int(n): value for n, value in of.items()} for kind, of in groups.items()}
            for name, groups in (("cuts", document["cuts"]), ("replicated", document["replicated"]))
        }
        model = CostModel(
            numbers={name: Estimate(**value) for name, value in document["numbers"].items()},
            cuts={
                kind: {n: tuple(cut) for n, cut in cuts.items()}
                for kind, cuts in by_number["cuts"].items()
            },
            replicated=by_number["replicated"],
            shapes={name: Architecture(**shape) for name, shape in document["shapes"].items()},
            **{
                name: document[name]
                for name in ("activation", "device_gib", "sequence", "bytes_per_value", "note")
            },
        )
        if [*model.numbers][: len(CHIP)] != [*CHIP]:
            raise ProfileError(f"numbers: expected {', '.join(CHIP)} first")
        return model
    except (ProfileError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ProfileError(f"{path}: {reason}") from None


def kind_of(architecture: Architecture) -> str:
    """`experts` or `dense`."""
    return "experts" if architecture.experts else "dense"


def _sums(values: NDArray[np.float64], cut: Cut) -> NDArray[np.float64]:
    return np.add.reduceat(values, np.cumsum([0, *cut[:-1]]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the profile of a fitted cost model.")
    parser.add_argument("model", help="a shipped cost model, such as v100, or a file")
    parser.add_argument(
        "--out", required=True, help="file to write, such as data/profiles/v100.json"
    )
    arguments = parser.parse_args()
    model = load_cost_model(arguments.model)
    save_profile(arguments.out, model.profile(model.types))


if __name__ == "__main__":
    main()
