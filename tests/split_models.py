"""Models that are cut, held to the plain statement of what they are.

Also a program, whose arguments are shapes and operator-parallel degrees such as `bert:2`.
"""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np

from beta_jax import backend  # noqa: F401 - before JAX
from beta_jax.profiles.architectures import Architecture
from beta_jax.profiles.measure.model import Span, SplitModel

import reference_transformer

_BERT = Architecture(
    sequence=8, hidden=32, layers=4, heads=4, vocabulary=64, experts=4, expert_every=2
)
SHAPES = {
    "bert": _BERT,
    "llama": dataclasses.replace(
        _BERT, block="llama", heads=8, kv_heads=4, hidden=64, feed_forward=96, qkv_bias=True
    ),
}
"""Both kinds of block, each dense and with experts, one of them with grouped queries."""
CUTS = ((5,), (1, 4), (3, 2))
"""Layers of each stage."""


def largest_difference(shape: Architecture, op: int) -> float:
    """Of the output, however it is cut, from the plain statement."""
    model = SplitModel(shape, jax.local_devices()[:op], "float32")
    whole = Span(0, shape.layers + 1)
    tokens = model.input(whole, 2)
    weights = [jax.device_get(part) for part in model.load(whole)]
    expected = reference_transformer.forward(shape, weights, np.asarray(tokens))
    differences = []
    for cut in CUTS:
        ends = np.cumsum([0, *cut]).tolist()
        x = tokens
        for span in map(Span, ends, ends[1:]):
            x = model.run(span, model.load(span), x)
        differences.append(np.abs(np.asarray(x) - expected).max())
    assert np.abs(expected).max() > 1
    return max(differences)


if __name__ == "__main__":
    for name, op in (argument.split(":") for argument in sys.argv[1:]):
        print(largest_difference(SHAPES[name], int(op)))
