"""A model on operator-parallel devices: its weights layer by layer, its programs part by part.

A stage is a span of layers. It is run part by part, without waiting in between, as the parts of all
its layers are the same few programs: so a model of 128 blocks compiles as fast as one of two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from beta_jax.profiles.architectures import Architecture, Part, Weight
from beta_jax.profiles.measure.transformer import OP, Attention, apply

PARTS: tuple[Part, ...] = ("embedding", "dense", "experts", "output")


class Span(NamedTuple):
    """Layers `begin` up to and without `end`, see `architectures`."""

    begin: int
    end: int


class Program(NamedTuple):
    """A compiled part for one batch size, and what it takes on each device besides its weights."""

    run: Any
    bytes: int


class SplitModel:
    """An architecture on `devices`, all of which serve it by operator parallelism.

    Weights are random: those of a layer depend on `seed` and the layer, not on the devices.
    """

    def __init__(
        self,
        architecture: Architecture,
        devices: Sequence[jax.Device],
        dtype: Any,
        attention: Attention = "xla",
        seed: int = 0,
    ) -> None:
        """Raises ValueError if the devices cannot cut the weights evenly."""
        architecture.require_divisible(len(devices))
        self.architecture, self.dtype, self.attention = architecture, jnp.dtype(dtype), attention
        self.seed, self.op = seed, len(devices)
        self.program = functools.cache(self._compile)
        self._make = functools.cache(self._maker)
        self._mesh = Mesh(np.array(devices), (OP,))
        # Virtual devices of a CPU wait for each other in threads of one pool: programs that are
        # queued behind one another can take the threads that the first one waits for.
        self._one_by_one = self.op > 1 and devices[0].platform == "cpu"

    def parts(self, span: Span) -> list[Part]:
        return [part for layer in range(*span) for part in self.architecture.parts(layer)]

    def weight_bytes(self, span: Span) -> int:
        """Bytes of a span's weights on each device."""
        return sum(
            math.prod(self._sharding(weight).shard_shape(weight.shape)) * self.dtype.itemsize
            for part in self.parts(span)
            for weight in self.architecture.weights(part).values()
        )

    def act_bytes(self, span: Span, batch: int) -> int:
        """Most bytes that a part of the span takes on a device besides weights, when compiled.

        Its input, its output and what it keeps in between. Compiles what is not compiled yet.
        """
        return max(self.program(part, batch).bytes for part in dict.fromkeys(self.parts(span)))

    def load(self, span: Span) -> list[dict[str, jax.Array]]:
        """The weights of a span, part by part, on the devices."""
        return [
            self._make(part)(self._number(layer, part))
            for layer in range(*span)
            for part in self.architecture.parts(layer)
        ]

    def input(self, span: Span, batch: int) -> jax.Array:
        """What a span may get: random tokens, or hidden states."""
        wanted = self._input(self.parts(span)[0], batch)
        generator = np.random.default_rng(self.seed)
        made: np.ndarray = generator.standard_normal(wanted.shape, np.float32)
        if wanted.dtype == jnp.int32:
            made = generator.integers(self.architecture.vocabulary, size=wanted.shape)
        return jax.device_put(made.astype(wanted.dtype), wanted.sharding)

    def run(self, span: Span, weights: Sequence[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
        """What a span gives of x, [batch, ...]; it may still be on its way."""
        for part, own in zip(self.parts(span), weights, strict=True):
            x = self.program(part, x.shape[0]).run(own, x)
            if self._one_by_one:
                x.block_until_ready()
        return x

    def trace(self, part: Part, batch: int) -> jax.stages.Traced:
        """The program of a part before it is compiled, for whatever platform."""
        weights = self.architecture.weights(part)
        function = jax.shard_map(
            functools.partial(apply, part, self.architecture, self.attention),
            mesh=self._mesh,
            in_specs=({name: _spec(weight) for name, weight in weights.items()}, PartitionSpec()),
            out_specs=PartitionSpec(None, None, OP) if part == "output" else PartitionSpec(),
        )
        given = {
            name: jax.ShapeDtypeStruct(w.shape, self.dtype, sharding=self._sharding(w))
            for name, w in weights.items()
        }
        return jax.jit(function).trace(given, self._input(part, batch))

    def _compile(self, part: Part, batch: int) -> Program:
        compiled = self.trace(part, batch).lower().compile()
        memory: Any = compiled.memory_analysis()
        between = memory.output_size_in_bytes + memory.temp_size_in_bytes
        x = self._input(part, batch)
        return Program(compiled, x.size * x.dtype.itemsize + between)

    def _input(self, part: Part, batch: int) -> jax.ShapeDtypeStruct:
        shape: tuple[int, ...] = (batch, self.architecture.sequence)
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        if part == "embedding":
            return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=everywhere)
        shape = (*shape, self.architecture.hidden)
        return jax.ShapeDtypeStruct(shape, self.dtype, sharding=everywhere)

    def _number(self, layer: int, part: Part) -> np.uint32:
        """A random one for each part of the model."""
        index = layer * len(PARTS) + PARTS.index(part)
        return np.random.default_rng((self.seed, index)).integers(2**32, dtype=np.uint32)

    def _maker(self, part: Part) -> Any:
        """What makes the weights of a part on the devices, of a number that they depend on."""
        weights = self.architecture.weights(part)
        scale = self.architecture.hidden**-0.5  # hidden states stay of a size

        def make(number: jax.Array) -> dict[str, jax.Array]:
            made = {}
            for position, (name, weight) in enumerate(weights.items()):
                noise = _noise(weight.shape, number + jnp.uint32(position))
                about = name.startswith("norm") and not name.endswith("bias")
                made[name] = (scale * noise + about).astype(self.dtype)
            return made

        shardings = {name: self._sharding(weight) for name, weight in weights.items()}
        return jax.jit(make, out_shardings=shardings)

    def _sharding(self, weight: Weight) -> NamedSharding:
        return NamedSharding(self._mesh, _spec(weight))


def _spec(weight: Weight) -> PartitionSpec:
    return PartitionSpec(
        *(OP if axis == weight.axis else None for axis in range(len(weight.shape)))
    )


def _noise(shape: Sequence[int], number: jax.Array) -> jax.Array:
    """Numbers that look random, uniform with variance 1, float32; a hash of where they stand.

    The same however they are sharded, made in place, and compiled far faster than what
    `jax.random` would do of each weight.
    """
    value = number * jnp.uint32(0x9E3779B9)
    for axis in range(len(shape)):
        value = _mix(value + jax.lax.broadcasted_iota(jnp.uint32, shape, axis))
    return (value.astype(jnp.float32) / 2**31 - 1) * math.sqrt(3)


def _mix(value: jax.Array) -> jax.Array:
    """A bijection of 32 bits in which every bit depends on every other one (MurmurHash3's)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = (value ^ (value >> shift)) * jnp.uint32(factor)
    return value ^ (value >> 16)
