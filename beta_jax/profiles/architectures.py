"""Shapes of transformers: the published model types, decoders of today, and your own.

A model is a chain of layers: the blocks, of which the first has the input embedding with it, and
the output embedding. A pipeline is cut between any two of them (`stages`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from beta_jax.checks import require_whole
from beta_jax.profiles.names import nearest

MOST_LAYERS, MOST_SIZE = 2**16, 2**31 - 1
Part = Literal["embedding", "dense", "experts", "output"]
"""What a layer is made of: the input embedding, a block of either kind, the output embedding."""


class Weight(NamedTuple):
    """The shape of a weight, and the axis that operator parallelism cuts (None: none)."""

    shape: tuple[int, ...]
    axis: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a transformer. Raises ValueError for sizes that do not go together.

    A `bert` block has layer norms, biases, a GELU and attention over the whole sequence, and gives
    an output for every token. A `llama` block has RMS norms, rotary embeddings, a gated
    feed-forward network and causal attention, and gives an output for the last token alone: it
    processes a prompt.
    """

    block: Annotated[Literal["bert", "llama"], "kind of block"] = "bert"
    sequence: Annotated[int, "tokens of a request"]
    hidden: Annotated[int, "hidden size"]
    layers: Annotated[int, "number of blocks"]
    heads: Annotated[int, "attention heads"]
    kv_heads: Annotated[int | None, "heads of keys and values; none: as many as heads"] = None
    feed_forward: Annotated[int | None, "width of feed-forward networks; none: 4 hidden"] = None
    vocabulary: Annotated[int, "tokens known"]
    experts: Annotated[int, "experts of a mixture; 0: none"] = 0
    experts_per_token: Annotated[int, "experts that each token is sent to"] = 2
    expert_every: Annotated[int, "of every so many blocks the first has experts"] = 1
    qkv_bias: Annotated[bool, "llama blocks: queries, keys and values have a bias"] = False

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is None and name in ("kv_heads", "feed_forward"):
                continue
            if name not in ("block", "qkv_bias"):
                most = MOST_LAYERS if name == "layers" else MOST_SIZE
                require_whole(name, value, int(name != "experts"), most)
        if not (isinstance(self.block, str) and self.block in ("bert", "llama")):
            raise ValueError(f"block must be bert or llama, got {self.block!r}")
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"heads must divide hidden into even sizes, got {self.heads} and {self.hidden}"
            )
        if self.heads % self.num_kv_heads:
            raise ValueError(f"kv_heads must divide heads: {self.num_kv_heads} and {self.heads}")
        if self.experts < 0 or (self.experts and self.experts_per_token > self.experts):
            raise ValueError(
                f"experts must be 0 or >= experts_per_token ({self.experts_per_token}), "
                f"got {self.experts}"
            )
        if self.experts and self.layers % self.expert_every:
            raise ValueError(
                f"expert_every must divide layers: {self.expert_every} and {self.layers}"
            )

    @property
    def num_kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def width(self) -> int:
        """Of feed-forward networks."""
        return 4 * self.hidden if self.feed_forward is None else self.feed_forward

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    def parts(self, layer: int) -> tuple[Part, ...]:
        """What layer `layer` is made of, 0 to `layers`, the last being the output embedding."""
        if layer == self.layers:
            return ("output",)
        mixed = self.experts > 0 and layer % self.expert_every == 0
        block: Part = "experts" if mixed else "dense"
        return ("embedding", block) if layer == 0 else (block,)

    def weights(self, part: Part) -> dict[str, Weight]:
        """The weights of a part, by name."""
        hidden, size = self.hidden, self.head_size
        if part == "embedding":
            tokens = {"token": Weight((self.vocabulary, hidden), 0)}
            rotary = self.block == "llama"
            return tokens if rotary else tokens | {"position": Weight((self.sequence, hidden))}
        if part == "output":
            return self._norm("norm") | {"token": Weight((hidden, self.vocabulary), 1)}
        found = self._norm("norm_attention") | self._norm("norm_feed_forward")
        for name, heads in (
            ("query", self.heads),
            ("key", self.num_kv_heads),
            ("value", self.num_kv_heads),
        ):
            found[name] = Weight((hidden, heads, size), 1)
            if self.block == "bert" or self.qkv_bias:
                found[f"{name}_bias"] = Weight((heads, size), 0)
        found["attended"] = Weight((self.heads, size, hidden), 0)
        matrices = {"up": Weight((hidden, self.width), 1), "down": Weight((self.width, hidden), 0)}
        if self.block == "llama":
            matrices["gate"] = matrices["up"]
        else:
            found["attended_bias"] = Weight((hidden,))
            matrices |= {"up_bias": Weight((self.width,), 0), "down_bias": Weight((hidden,))}
        if part == "experts":
            found["router"] = Weight((hidden, self.experts))
            matrices = {
                name: Weight((self.experts, *weight.shape), 0) for name, weight in matrices.items()
            }
        return found | matrices

    def _norm(self, name: str) -> dict[str, Weight]:
        scale = {name: Weight((self.hidden,))}
        return scale | {f"{name}_bias": Weight((self.hidden,))} if self.block == "bert" else scale

    def num_weights(self, layer: int) -> int:
        """Weights of a layer, all devices together."""
        return sum(w.size for part in self.parts(layer) for w in self.weights(part).values())

    def require_divisible(self, op: int) -> None:
        """Raise ValueError if operator parallelism of degree `op` cannot cut the weights evenly."""
        sizes = {"heads": self.heads, "kv_heads": self.num_kv_heads, "vocabulary": self.vocabulary}
        if self.experts:
            sizes["experts"] = self.experts
        if not self.experts or self.expert_every > 1:
            sizes["feed_forward"] = self.width
        for name, size in sizes.items():
            if size % op:
                raise ValueError(f"{name} = {size} is not divisible by op = {op}")


def _bert(hidden: int, layers: int, heads: int, sequence: int = 2048) -> Architecture:
    return Architecture(
        sequence=sequence, hidden=hidden, layers=layers, heads=heads, vocabulary=51200
    )


def _moe(hidden: int, experts: int) -> Architecture:
    # Every other block has experts and networks are 8 times as wide as the hidden size: so say the
    # published weights, 12 + 8 experts times hidden squared a layer.
    return Architecture(
        sequence=1024,
        hidden=hidden,
        layers=16,
        heads=16,
        vocabulary=32000,
        feed_forward=8 * hidden,
        experts=experts,
        expert_every=2,
    )


def _decoder(hidden: int, layers: int, heads: int, kv_heads: int, **others: Any) -> Architecture:
    return Architecture(
        block="llama",
        sequence=2048,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        **others,
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    # Beta, OSDI 2023, table 1. The hidden size of moe-5.3b is not published; the weights that its
    # first, middle and last stages were measured to have imply 1536, and half as many experts as
    # were said.
    "bert-1.3b": _bert(2048, 24, 32),
    "bert-2.6b": _bert(2560, 32, 32),
    "bert-6.7b": _bert(4096, 32, 32),
    "bert-15b": _bert(5120, 48, 40),
    "bert-15.4b": _bert(5120, 48, 40),  # the same, as a measured profile calls it
    "bert-103.5b": _bert(8192, 128, 64, sequence=1024),
    "moe-1.3b": _moe(768, 16),
    "moe-2.4b": _moe(1024, 16),
    "moe-5.3b": _moe(1536, 16),
    "moe-7.1b": _moe(1280, 32),
    # Decoders, as their publishers describe them.
    "llama-3.1-8b": _decoder(4096, 32, 32, 8, feed_forward=14336, vocabulary=128256),
    "llama-3.1-70b": _decoder(8192, 80, 64, 8, feed_forward=28672, vocabulary=128256),
    "qwen2.5-7b": _decoder(3584, 28, 28, 4, feed_forward=18944, vocabulary=152064, qkv_bias=True),
    "qwen2.5-32b": _decoder(5120, 64, 40, 8, feed_forward=27648, vocabulary=152064, qkv_bias=True),
    "mixtral-8x7b": _decoder(4096, 32, 32, 8, feed_forward=14336, vocabulary=32000, experts=8),
    # Nobody's: to try things with.
    "tiny": Architecture(sequence=32, hidden=64, layers=4, heads=4, vocabulary=1024),
}


def find_architecture(name: str) -> Architecture:
    """The shape of a model type; raises ValueError with the nearest names if it is not known."""
    if name not in ARCHITECTURES:
        near = nearest(name, ARCHITECTURES)
        known = f"nearest: {', '.join(near)}; " if near else ""
        raise ValueError(f"no architecture {name!r}; {known}known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
