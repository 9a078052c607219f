"""Maximum-likelihood gamma distributions for many samples at once, location 0.

The mean of the fit is the mean of the sample; its shape k solves `log k - digamma(k) = s` with
`s = log(mean) - mean(log)`. Newton's method on 1/k (Minka, "Estimating a Gamma distribution",
2002) needs four or five steps from any s, so all samples take the same few steps together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 8
PAD = 4096
"""Samples per call of the compiled program, so that it is compiled once."""


def gamma_shapes(log_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shapes k, float64 [sample], for s = log(mean) - mean(log) > 0, float64 [sample]."""
    from beta_jax import backend  # which loads JAX

    padded = np.pad(log_ratio, (0, -len(log_ratio) % PAD), constant_values=1.0)
    with backend.on_cpu():
        parts = [_program()(padded[i : i + PAD]) for i in range(0, len(padded), PAD)]
    return np.concatenate([np.empty(0), *parts])[: len(log_ratio)]


@functools.cache
def _program() -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import digamma, polygamma

    def solve(s: jax.Array) -> jax.Array:
        def step(_: int, k: jax.Array) -> jax.Array:
            error = jnp.log(k) - digamma(k) - s
            return 1 / (1 / k + error / (k**2 * (1 / k - polygamma(1, k))))

        return jax.lax.fori_loop(0, STEPS, step, (3 - s + jnp.sqrt((s - 3) ** 2 + 24 * s)) / 12 / s)

    return jax.jit(solve)
