"""How many blocks of keys and values fit beside the weights of a model.

An estimate: what an engine reserves for activations, graphs and the driver is its own business. It
reports the blocks that it found when it starts, and these should be used where they are known.
"""

from __future__ import annotations

import math

from beta_jax.llm.requests import LLMError
from beta_jax.profiles.architectures import Architecture

UTILISATION = 0.9
"""vLLM's default share of the device's memory that it may use."""
RESERVE_BYTES = 2**30
"""Assumed: activations of a step, and what the driver keeps."""


def weight_bytes(model: Architecture, *, bytes_per_weight: float = 2) -> float:
    """Of all weights, on all devices together."""
    return bytes_per_weight * sum(map(model.num_weights, range(model.layers + 1)))


def kv_bytes_per_token(
    model: Architecture, *, bytes_per_value: float = 2, tensor_parallel: int = 1
) -> float:
    """Of the keys and values of one token on one device: 2 x layers x heads x head size x bytes.

    Heads of keys and values are shared out; where there are fewer than devices, each has one.
    """
    heads = max(model.num_kv_heads // tensor_parallel, 1)
    return 2 * model.layers * heads * model.head_size * bytes_per_value


def estimate_num_blocks(
    model: Architecture,
    device_bytes: float,
    *,
    tensor_parallel: int = 1,
    block_size: int = 16,
    utilisation: float = UTILISATION,
    reserve_bytes: float = RESERVE_BYTES,
    bytes_per_weight: float = 2,
    bytes_per_value: float = 2,
) -> int:
    """Blocks of `block_size` tokens that fit on each of `tensor_parallel` devices.

    device_bytes: the memory of a device, as its driver reports it. utilisation: the share of it
    that may be used. Raises LLMError where not one block fits, and for parallelism that does not
    divide the heads.
    """
    for name, value in (("device_bytes", device_bytes), ("block_size", block_size)):
        if not 0 < value < math.inf:
            raise LLMError(f"{name} must be > 0, got {value}")
    if not 0 < utilisation <= 1:
        raise LLMError(f"utilisation must be in (0, 1], got {utilisation}")
    if tensor_parallel < 1 or model.heads % tensor_parallel:
        raise LLMError(f"tensor_parallel must divide {model.heads} heads, got {tensor_parallel}")
    weights = weight_bytes(model, bytes_per_weight=bytes_per_weight) / tensor_parallel
    free = utilisation * device_bytes - weights - reserve_bytes
    token = kv_bytes_per_token(
        model, bytes_per_value=bytes_per_value, tensor_parallel=tensor_parallel
    )
    blocks = int(free // (block_size * token))
    if blocks < 1:
        raise LLMError(
            f"no block of keys and values fits: of {device_bytes / 2**30:.1f} GiB the weights take "
            f"{weights / 2**30:.1f}, and {reserve_bytes / 2**30:.1f} are reserved; more devices?"
        )
    return blocks
