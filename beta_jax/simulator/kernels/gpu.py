"""A launch: many blocks of lanes, of many workloads, as one kernel on a GPU (Pallas).

`unrolled` states what a block does; here it is handed to the backend of Pallas that goes with the
version of JAX: Triton up to 0.10, Mosaic GPU from 0.11 on, where Triton is deprecated. A block has
a thread for every lane: a warp of 32, or Mosaic's 128.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from beta_jax import backend
from beta_jax.simulator.kernels import unrolled
from beta_jax.simulator.kernels.unrolled import Written
from beta_jax.simulator.layout import BlockShape, Counts, Launch

MOSAIC = backend.VERSION >= (0, 11)
LANES = 128 if MOSAIC else 32
"""Lanes of a block."""
MAX_CLOCKS, MAX_CONFIGS = 64, 16
"""Clocks of a lane, of all its groups: more do not fit the registers of a thread. Configurations in
a block: each costs instructions, as lanes choose their stages' latencies among all."""
CAPABILITY = (9, 0) if MOSAIC else (8, 0)
"""The oldest GPUs that the backend of Pallas compiles for."""
OWN, OWN_WRITTEN = ("hosted", "config", "deadline"), 4
"""Arrays of `Launch`, and the first ones of `Written`, of which each block has its own."""
NAME = "beta_jax_simulate"


def run(
    shape: BlockShape, launch: Launch, *, longest: int, num_rows: int, interpret: bool
) -> Written:
    """Simulate a launch (under jit; all but `launch` is static). Arrays [block, ..] of `Written`.

    longest: at least the requests of any block. num_rows: of what happened to each request, enough
    for what `Launch.row` says; 0 where only counts are asked for. interpret: as XLA's own
    operations, for a CPU.
    """
    num_blocks, num_groups, lanes = launch.config.shape

    def rows(*dims: int, dtype: type = jnp.int64) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*dims, lanes), dtype)

    models = rows(num_blocks, launch.hosted.shape[1])
    num_parts = max(-(-longest // unrolled.PART), 1)
    out = Written(models, models, rows(num_blocks, num_parts, num_groups, dtype=jnp.int32))
    if shape.rule.after is not None:
        out = out._replace(memory=models)
    if num_rows:
        out = out._replace(finish=rows(num_rows), group=rows(num_rows, dtype=jnp.int32))
    if MOSAIC and not interpret:
        return _mosaic(shape, launch, out)
    return _triton(shape, launch, out, interpret)


def counts(written: Written) -> Counts:
    """The counts of every block, int64 [block, .., lane] each, of arrays of NumPy or JAX."""
    sent, good = written.groups & (2**16 - 1), written.groups >> 16
    return Counts(written.good, written.latency, sent.sum(1, "int64"), good.sum(1, "int64"))


def _triton(shape: BlockShape, launch: Launch, out: Written, interpret: bool) -> Written:
    def own(array: Any) -> pl.BlockSpec:
        rest = array.shape[1:]
        return pl.BlockSpec((None, *rest), lambda number: (number, *(0 for _ in rest)))

    def whole(array: Any) -> pl.BlockSpec:
        return pl.BlockSpec(array.shape, lambda number: (0,) * len(array.shape))

    leaves, structure = jax.tree.flatten(out)
    each = len(jax.tree.leaves(out[:OWN_WRITTEN]))

    def kernel(*refs: Any) -> None:
        block = Launch(*refs[: len(launch)])
        written = jax.tree.unflatten(structure, refs[len(launch) :])
        unrolled.simulate(shape, block, written, pl.program_id(0))

    found = pl.pallas_call(
        kernel,
        grid=(launch.config.shape[0],),
        in_specs=[(own if name in OWN else whole)(a) for name, a in launch._asdict().items()],
        out_specs=[*map(own, leaves[:each]), *map(whole, leaves[each:])],
        out_shape=leaves,
        interpret=interpret,
        compiler_params=None if interpret else _one_warp(),
        name=NAME,
    )(*launch)
    return jax.tree.unflatten(structure, found)


def _one_warp() -> Any:
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=1, num_stages=1)


def _mosaic(shape: BlockShape, launch: Launch, out: Written) -> Written:
    from jax.experimental.pallas import mosaic_gpu

    mosaic: Any = mosaic_gpu  # type checkers see another version
    leaves, structure = jax.tree.flatten(out)
    each = len(jax.tree.leaves(out[:OWN_WRITTEN]))

    def kernel(*refs: Any) -> None:
        number = jax.lax.axis_index("block")
        block = Launch(*refs[: len(launch)])
        block = block._replace(**{name: getattr(block, name).at[number] for name in OWN})
        out_refs = refs[len(launch) :]
        own = [ref.at[number] for ref in out_refs[:each]]
        written = jax.tree.unflatten(structure, [*own, *out_refs[each:]])
        unrolled.simulate(shape, block, written, number)

    found = mosaic.kernel(
        kernel,
        out_type=leaves,
        grid=(launch.config.shape[0],),
        grid_names=("block",),
        compiler_params=mosaic.CompilerParams(
            lowering_semantics=mosaic.LoweringSemantics.Lane, unsafe_no_auto_barriers=True
        ),
        kernel_name=NAME,
    )(*launch)
    return jax.tree.unflatten(structure, found)


def devices() -> list[jax.Device]:
    """The devices for launches: all local GPUs that have the kernel, if JAX's default is a GPU."""
    if jax.default_backend() != "gpu":
        return []
    return [device for device in jax.local_devices() if _has_kernel(device)]


def _has_kernel(device: jax.Device) -> bool:
    version = str(getattr(device, "compute_capability", ""))  # of AMD's: gfx and a number
    digits = version.split(".")
    return all(map(str.isdecimal, digits)) and tuple(map(int, digits)) >= CAPABILITY
