"""A launch: many blocks of lanes, of many workloads, as one kernel on a GPU (Pallas).

`unrolled` states what a block does; here it is handed to the backend of Pallas that goes with the
version of JAX: Triton up to 0.10, Mosaic GPU from 0.11 on, where Triton is deprecated. A block has
a thread for every lane: a warp of 32, or Mosaic's 128.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

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
OWN = {"hosted", "config", "deadline", "good", "total_latency", "groups", "memory"}
"""Arrays of `Launch` and `Written` of which each block has its own."""
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
    return Counts(written.good, written.total_latency, sent.sum(1, "int64"), good.sum(1, "int64"))


def _triton(shape: BlockShape, launch: Launch, out: Written, interpret: bool) -> Written:
    from jax.experimental import pallas as pl  # which takes most of JAX's own time to import

    def spec(name: str, array: Any) -> pl.BlockSpec:
        if name in OWN:
            rest = array.shape[1:]
            return pl.BlockSpec((None, *rest), lambda number: (number, *(0 for _ in rest)))
        return pl.BlockSpec(array.shape, lambda number: (0,) * len(array.shape))

    arrays, outputs = _present(launch), _present(out)

    def kernel(*refs: Any) -> None:
        named = dict(zip([*arrays, *outputs], refs, strict=True))
        unrolled.simulate(shape, *_views(named), pl.program_id(0))

    found = pl.pallas_call(
        kernel,
        grid=(launch.config.shape[0],),
        in_specs=[spec(*item) for item in arrays.items()],
        out_specs=[spec(*item) for item in outputs.items()],
        out_shape=list(outputs.values()),
        interpret=interpret,
        compiler_params=None if interpret else _one_warp(),
        name=NAME,
    )(*arrays.values())
    return Written(**dict(zip(outputs, found, strict=True)))


def _one_warp() -> Any:
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=1, num_stages=1)


def _mosaic(shape: BlockShape, launch: Launch, out: Written) -> Written:
    from jax.experimental.pallas import mosaic_gpu

    mosaic: Any = mosaic_gpu  # type checkers see another version
    arrays, outputs = _present(launch), _present(out)

    def kernel(*refs: Any) -> None:
        number = jax.lax.axis_index("block")
        named = dict(zip([*arrays, *outputs], refs, strict=True))
        named |= {name: ref.at[number] for name, ref in named.items() if name in OWN}
        unrolled.simulate(shape, *_views(named), number)

    found = mosaic.kernel(
        kernel,
        out_type=list(outputs.values()),
        grid=(launch.config.shape[0],),
        grid_names=("block",),
        compiler_params=mosaic.CompilerParams(
            lowering_semantics=mosaic.LoweringSemantics.Lane, unsafe_no_auto_barriers=True
        ),
        kernel_name=NAME,
    )(*arrays.values())
    return Written(**dict(zip(outputs, found, strict=True)))


def _present(arrays: Launch | Written) -> dict[str, Any]:
    return {name: array for name, array in arrays._asdict().items() if array is not None}


def _views(named: dict[str, Any]) -> tuple[Launch, Written]:
    block = {name: ref for name, ref in named.items() if name in Launch._fields}
    written = {name: ref for name, ref in named.items() if name in Written._fields}
    return Launch(**block), Written(**written)


def devices() -> list[jax.Device]:
    """The devices for launches: all local GPUs that have the kernel, if JAX's default is a GPU."""
    if jax.default_backend() != "gpu":
        return []
    return [device for device in jax.local_devices() if _has_kernel(device)]


def _has_kernel(device: jax.Device) -> bool:
    version = str(getattr(device, "compute_capability", ""))  # of AMD's: gfx and a number
    digits = version.split(".")
    return all(map(str.isdecimal, digits)) and tuple(map(int, digits)) >= CAPABILITY
