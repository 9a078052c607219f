"""A V100 profile from a few published facts and a short formula; calibrated models come later.

    python -m beta_jax.profiles.cost_model --out data/profiles/v100.json

Published: single-device latency and weights (Beta, OSDI 2023, Table 1) and the architectures. The
formula, for operator degree n, pp stages and batch size b:

    pass      = compute / n + (n - 1) / n * 2 * all_reduce      one request through all layers
    stage     = (0.1 + 0.9 b) * (pass / pp + handover)          no hand-over after the last stage

`compute` is the single-device latency. `all_reduce` is the time that the activations of two
reductions a layer take over one NVLink; it comes to 11 % of `compute` for the dense types of Table
1, and that share is used for the mixtures of experts, whose latency their shapes do not explain.
Weights and work are cut evenly. Derived, not published: the latencies of bert-15b and moe-7.1b, the
weights of the types that give no `weight_gib`, activations (rough: the live tensors of one layer).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from typing import Any

from beta_jax.profiles.profile import FORMAT, PUBLISHED_LATENCY_S, VERSION, Profile, save_profile
from beta_jax.types import GB

DEVICE_BYTES = 16 * GB  # a V100; what does not fit into it can never have been profiled
NVLINK_BYTES_PER_S = 25e9  # one link, one direction
HANDOVER_S = 1e-3  # between two stages: assumed, a round figure
FIXED_SHARE = 0.1  # of a pass at batch size 1 that larger batches do not repeat: assumed
BYTES_PER_VALUE = 2  # fp16
DENSE_ALL_REDUCE_SHARE = 0.11  # of `compute`: what the dense types of Table 1 come to


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A transformer, and what is published of its latency and weights on one device."""

    sequence: int
    hidden: int
    layers: int
    heads: int
    vocabulary: int
    experts: int = 0
    latency_s: float | None = None
    weight_gib: float | None = None

    def matrix_weight_bytes(self) -> int:
        """12 H^2 values a layer, 8 H^2 for each expert, and the input and output embeddings."""
        per_layer = (12 + 8 * self.experts) * self.hidden**2
        return BYTES_PER_VALUE * (self.layers * per_layer + 2 * self.vocabulary * self.hidden)

    def weight_bytes(self) -> float:
        return self.matrix_weight_bytes() if self.weight_gib is None else self.weight_gib * GB

    def layer_flop(self) -> list[int]:
        """Floating-point operations of each layer of a forward pass, then of the output embedding.

        A token is the work of one expert.
        """
        s, h = self.sequence, self.hidden
        return [24 * s * h**2 + 4 * s**2 * h] * self.layers + [2 * s * h * self.vocabulary]

    def flop(self) -> int:
        """Floating-point operations of a forward pass."""
        return sum(self.layer_flop())

    def all_reduce_s(self, compute_s: float) -> float:
        """Seconds to send what a forward pass reduces, once over one link."""
        if self.experts:
            return DENSE_ALL_REDUCE_SHARE * compute_s
        values = 2 * self.layers * self.sequence * self.hidden
        return BYTES_PER_VALUE * values / NVLINK_BYTES_PER_S

    def act_bytes(self) -> float:
        """Feed-forward activations and attention scores of one layer and one request."""
        return BYTES_PER_VALUE * self.sequence * (8 * self.hidden + 2 * self.heads * self.sequence)


ARCHITECTURES = {
    "bert-1.3b": Architecture(2048, 2048, 24, 32, 51200, 0, 0.151, 2.644),
    "bert-2.6b": Architecture(2048, 2560, 32, 32, 51200, 0, 0.238, 5.18),
    "bert-6.7b": Architecture(2048, 4096, 32, 32, 51200, 0, 0.395, 12.788),
    "bert-15b": Architecture(2048, 5120, 48, 40, 51200),
    "bert-103.5b": Architecture(1024, 8192, 128, 64, 51200),
    "moe-1.3b": Architecture(1024, 768, 16, 16, 32000, 16, 0.150, 2.559),
    "moe-2.4b": Architecture(1024, 1024, 16, 16, 32000, 16, 0.171, 4.506),
    # The hidden length of moe-5.3b is not published; its weights imply this one (activations only).
    "moe-5.3b": Architecture(1024, 1114, 16, 16, 32000, 32, 0.234, 10.04),
    "moe-7.1b": Architecture(1024, 1280, 16, 16, 32000, 32),
}
DERIVED_FROM = {"bert-15b": ("bert-2.6b", "bert-6.7b"), "moe-7.1b": ("moe-1.3b", "moe-2.4b")}
MINIMAL_PIPELINE = {"bert-103.5b": 16}  # the stages with which Table 1's latency was measured


def compute_s(name: str) -> float:
    """Seconds for one request's computation on one device: published, or derived from what is.

    bert-15b and moe-7.1b lie on the line in FLOP through the two nearest types of their kind whose
    shape and latency are published; bert-103.5b takes its pipeline's latency less the hand-overs.
    """
    if name in MINIMAL_PIPELINE:
        return PUBLISHED_LATENCY_S[name] - (MINIMAL_PIPELINE[name] - 1) * HANDOVER_S
    if name in DERIVED_FROM:
        (x0, y0), (x1, y1) = ((ARCHITECTURES[n].flop(), compute_s(n)) for n in DERIVED_FROM[name])
        return y0 + (y1 - y0) * (ARCHITECTURES[name].flop() - x0) / (x1 - x0)
    latency_s = ARCHITECTURES[name].latency_s
    assert latency_s is not None
    return latency_s


def layer_latency_s(name: str) -> list[float]:
    """Seconds that each layer takes on one device, the output embedding last: shares of FLOP."""
    flop = ARCHITECTURES[name].layer_flop()
    return [compute_s(name) * layer / sum(flop) for layer in flop]


def v100_profile() -> Profile:
    """All types at op 1..8, pp 1..32, batch 1..16, wherever a V100 can hold the weights."""
    types: dict[str, Any] = {}
    for name, architecture in ARCHITECTURES.items():
        compute = compute_s(name)
        types[name] = {"configs": []}
        if architecture.weight_bytes() > DEVICE_BYTES:
            alone_s = PUBLISHED_LATENCY_S.get(name, round(compute, 7))
            types[name]["reference_latency_s"] = alone_s
        for op, pp in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16, 32)):
            weight = architecture.weight_bytes() / (op * pp)
            if weight > DEVICE_BYTES:
                continue
            whole = compute / op + (op - 1) / op * 2 * architecture.all_reduce_s(compute)
            stages = [whole / pp + HANDOVER_S] * (pp - 1) + [whole / pp]
            config: dict[str, Any] = {"op": op, "pp": pp, "stage_latency_s": {}, "act_bytes": {}}
            config["weight_bytes"] = [float(round(weight))] * pp
            for batch in (1, 2, 4, 8, 16):
                times = FIXED_SHARE + (1 - FIXED_SHARE) * batch
                config["stage_latency_s"][str(batch)] = [round(times * t, 7) for t in stages]
                config["act_bytes"][str(batch)] = [batch * architecture.act_bytes() / op] * pp
            types[name]["configs"].append(config)
    note = "Made by beta_jax.profiles.cost_model from published figures; not measured."
    return Profile.from_dict({"format": FORMAT, "version": VERSION, "note": note, "types": types})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Write the V100 profile made from published figures."
    )
    parser.add_argument(
        "--out", required=True, help="file to write, such as data/profiles/v100.json"
    )
    save_profile(parser.parse_args().out, v100_profile())
