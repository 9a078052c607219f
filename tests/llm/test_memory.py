"""How many blocks fit, against what an engine reported and by hand."""

from __future__ import annotations

import pytest

from beta_jax import ARCHITECTURES
from beta_jax.llm import LLMError
from beta_jax.llm.memory import estimate_num_blocks, kv_bytes_per_token, weight_bytes

LLAMA = ARCHITECTURES["llama-3.1-8b"]
GIB = 2**30


def test_an_8b_model_on_a_24_gib_card():
    """vLLM reported 2588 blocks on an RTX 4090, whose driver reports some 23.5 GiB."""
    assert weight_bytes(LLAMA) == pytest.approx(2 * 8.03e9, rel=1e-3)
    assert kv_bytes_per_token(LLAMA) == 2 * 32 * 8 * 128 * 2 == 131072
    assert estimate_num_blocks(LLAMA, 23.5 * GIB) == pytest.approx(2588, rel=0.04)
    # 0.9 of the memory, less 14.96 GiB of weights and 1 GiB, in blocks of 2 MiB
    assert estimate_num_blocks(LLAMA, 23.5 * GIB) == int((0.9 * 23.5 - 14.9575 - 1) * 512)


def test_devices_share_heads_and_weights():
    whole = estimate_num_blocks(LLAMA, 80 * GIB, reserve_bytes=0)
    half = estimate_num_blocks(LLAMA, 40 * GIB, reserve_bytes=0, tensor_parallel=2)
    assert abs(whole - half) <= 1
    assert kv_bytes_per_token(LLAMA, tensor_parallel=16) == kv_bytes_per_token(
        LLAMA, tensor_parallel=8
    )
    small = estimate_num_blocks(LLAMA, 80 * GIB, reserve_bytes=0, bytes_per_value=1)
    assert small == pytest.approx(2 * whole, abs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_bytes": 16 * GIB}, "no block of keys and values fits: of 16.0 GiB the weights"),
        ({"device_bytes": float("nan")}, "device_bytes must be > 0, got nan"),
        ({"utilisation": 1.1}, "utilisation must be in"),
        ({"tensor_parallel": 3}, "tensor_parallel must divide 32 heads, got 3"),
    ],
)
def test_what_does_not_fit_is_a_line(options, message):
    with pytest.raises(LLMError, match=message):
        estimate_num_blocks(LLAMA, **{"device_bytes": 24 * GIB} | options)
