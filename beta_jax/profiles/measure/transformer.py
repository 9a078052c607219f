"""The parts of a transformer, each a function of its weights and of what the part before it gave.

They run on every operator-parallel device at once, over the axis `OP` of a `shard_map`: weights are
the device's own shards (`Weight.axis` says of what), activations are whole on each device and in
the dtype of the weights. Column-parallel matrices are followed by row-parallel ones, so that a
block adds up twice over the devices. An expert lives on one device and takes its equal share of the
tokens, as many slots as they are sent to experts, divided by these: what exceeds an expert's share
is left out (GShard, arXiv 2006.16668, with a capacity factor of 1). Random weights decide who is
sent where, so this is what keeps the amount of work that of a balanced mixture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from beta_jax.profiles.architectures import Architecture, Part

OP = "op"
"""Name of the axis over operator-parallel devices."""
Attention = Literal["xla", "cudnn"]
"""How attention is computed: in plain XLA operations, or by cuDNN's fused kernel."""
Weights = Mapping[str, jax.Array]
EPSILON = 1e-5
ROTARY_BASE = 10_000.0


def apply(
    part: Part, architecture: Architecture, attention: Attention, weights: Weights, x: jax.Array
) -> jax.Array:
    """What a part gives.

    Args:
        x: int32 [batch, token] for the embedding, else hidden states [batch, token, hidden].

    Returns:
        Hidden states; of the output embedding logits [batch, token, vocabulary / op], of the last
        token alone for a `llama` block.
    """
    if part == "embedding":
        return _embed(weights, x)
    if part == "output":
        last = x[:, -1:] if architecture.block == "llama" else x
        return _normalise(weights, "norm", last) @ weights["token"]
    x = x + _attend(architecture, attention, weights, _normalise(weights, "norm_attention", x))
    return x + _feed_forward(architecture, weights, _normalise(weights, "norm_feed_forward", x))


def _embed(weights: Weights, tokens: jax.Array) -> jax.Array:
    table = weights["token"]
    row = tokens - jax.lax.axis_index(OP) * table.shape[0]
    here = (row >= 0) & (row < table.shape[0])
    x = jax.lax.psum(jnp.where(here[..., None], table[row * here], 0), OP)
    return x + weights["position"] if "position" in weights else x


def _normalise(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """Layer norm where there is a bias, else RMS norm; in float32."""
    wide = x.astype(jnp.float32)
    if f"{name}_bias" in weights:
        wide = wide - wide.mean(-1, keepdims=True)
    wide = wide * jax.lax.rsqrt((wide**2).mean(-1, keepdims=True) + EPSILON)
    return _biased(weights, name, wide.astype(x.dtype) * weights[name])


def _biased(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return x + weights[f"{name}_bias"] if f"{name}_bias" in weights else x


def _attend(
    architecture: Architecture, attention: Attention, weights: Weights, x: jax.Array
) -> jax.Array:
    query, key, value = (
        _biased(weights, name, jnp.einsum("bth,hnd->btnd", x, weights[name]))
        for name in ("query", "key", "value")
    )
    decodes = architecture.block == "llama"
    if decodes:
        query, key = _rotate(query), _rotate(key)
    attended = jax.nn.dot_product_attention(
        query, key, value, is_causal=decodes, implementation=attention
    )
    summed = jax.lax.psum(jnp.einsum("btnd,ndh->bth", attended, weights["attended"]), OP)
    return _biased(weights, "attended", summed)


def _rotate(x: jax.Array) -> jax.Array:
    """Rotary position embedding, the two halves of a head paired; in float32."""
    half = x.shape[-1] // 2
    frequency = ROTARY_BASE ** -(jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None, None] * frequency
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)
    return rotated.astype(x.dtype)


def _feed_forward(architecture: Architecture, weights: Weights, x: jax.Array) -> jax.Array:
    if "router" in weights:
        tokens = x.reshape(-1, x.shape[-1])
        return jax.lax.psum(_mixture(architecture, weights, tokens), OP).reshape(x.shape)
    wide = _activate(weights, x @ weights["up"], lambda: x @ weights["gate"])
    return _biased(weights, "down", jax.lax.psum(wide @ weights["down"], OP))


def _activate(weights: Weights, up: jax.Array, gate) -> jax.Array:
    if "gate" in weights:
        return jax.nn.silu(gate()) * up
    return jax.nn.gelu(up + weights["up_bias"])


def _mixture(architecture: Architecture, weights: Weights, x: jax.Array) -> jax.Array:
    """What this device's experts add to each token, [token, hidden]; the devices' sum is theirs."""
    num_tokens, sent = x.shape[0], architecture.experts_per_token
    scores = jax.nn.softmax((x @ weights["router"]).astype(jnp.float32))
    share, expert = jax.lax.top_k(scores, sent)  # [token, choice]
    share = share / share.sum(-1, keepdims=True)
    expert = expert.reshape(-1)
    slots = math.ceil(num_tokens * sent / architecture.experts)
    # How many sent to the same expert come before.
    taken = jax.nn.one_hot(expert, architecture.experts, dtype=jnp.int32)
    slot = ((jnp.cumsum(taken, axis=0, dtype=jnp.int32) - 1) * taken).sum(-1, dtype=jnp.int32)
    here = weights["up"].shape[0]
    local = expert - jax.lax.axis_index(OP) * here
    served = (slot < slots) & (local >= 0) & (local < here)
    place = jnp.where(served, local * slots + slot, here * slots)
    token = jnp.arange(num_tokens * sent, dtype=jnp.int32) // sent
    sources = jnp.zeros(here * slots, jnp.int32).at[place].set(token, mode="drop")
    y = _run_experts(weights, x[sources].reshape(here, slots, -1)).reshape(here * slots, -1)
    factor = jnp.where(served, share.reshape(-1), 0).astype(x.dtype)
    given = y[jnp.where(served, place, 0)] * factor[:, None]
    return given.reshape(num_tokens, sent, -1).sum(1)


def _run_experts(weights: Weights, x: jax.Array) -> jax.Array:
    """Each expert on its slots, [expert, slot, hidden]."""
    per_slot = {
        name: weight[:, None]
        for name, weight in weights.items()
        if name in ("up_bias", "down_bias")
    }
    gate = {name: weights[name] for name in ("gate",) if name in weights}
    wide = _activate(gate | per_slot, x @ weights["up"], lambda: x @ weights["gate"])
    return _biased(per_slot, "down", wide @ weights["down"])
