"""Shapes of transformers have the numbers of weights that are published of them."""

from __future__ import annotations

import dataclasses

import pytest

from beta_jax.profiles.architectures import ARCHITECTURES, Architecture, find_architecture
from beta_jax.types import GB

TINY = Architecture(sequence=8, hidden=16, layers=4, heads=4, vocabulary=32)
PUBLISHED = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-32b": 32_763_876_352,
    "mixtral-8x7b": 46_702_792_704,
}
ON_ONE_DEVICE_GIB = {"bert-1.3b": 2.644, "bert-2.6b": 5.18, "bert-6.7b": 12.788,
                     "moe-1.3b": 2.559, "moe-2.4b": 4.506, "moe-5.3b": 10.04}  # fmt: skip


def total(architecture: Architecture) -> int:
    return sum(map(architecture.num_weights, range(architecture.layers + 1)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_decoders_have_the_published_number_of_weights(name):
    assert total(ARCHITECTURES[name]) == PUBLISHED[name]


@pytest.mark.parametrize("name", ON_ONE_DEVICE_GIB)
def test_published_types_weigh_what_was_measured(name):
    assert 2 * total(ARCHITECTURES[name]) / GB == pytest.approx(ON_ONE_DEVICE_GIB[name], rel=0.005)


def test_layers_are_blocks_with_embeddings_at_both_ends():
    mixed = dataclasses.replace(TINY, experts=4, expert_every=2)
    assert [mixed.parts(layer) for layer in range(5)] == [
        ("embedding", "experts"),
        ("dense",),
        ("experts",),
        ("dense",),
        ("output",),
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"heads": 3}, "heads must divide hidden"),
        ({"heads": 16}, "heads must divide hidden into even sizes"),
        ({"kv_heads": 3}, "kv_heads must divide heads: 3 and 4"),
        ({"kv_heads": 0}, "kv_heads must be >= 1"),
        ({"layers": 0}, "layers must be >= 1"),
        ({"experts": 1}, r"experts must be 0 or >= experts_per_token \(2\), got 1"),
        ({"experts": 4, "expert_every": 3}, "expert_every must divide layers: 3 and 4"),
        ({"block": "gpt"}, "block must be bert or llama"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(change, expected):
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "op", "expected"),
    [
        ({}, 8, "heads = 4 is not divisible by op = 8"),
        ({"kv_heads": 2}, 4, "kv_heads = 2 is not divisible by op = 4"),
        ({"vocabulary": 30}, 4, "vocabulary = 30"),
        ({"feed_forward": 30}, 4, "feed_forward = 30"),
        ({"experts": 6, "feed_forward": 30}, 4, "experts = 6"),
    ],
)
def test_what_operator_parallelism_cannot_cut_is_named(change, op, expected):
    architecture = dataclasses.replace(TINY, **change)
    architecture.require_divisible(2)
    with pytest.raises(ValueError, match=expected):
        architecture.require_divisible(op)


def test_an_unknown_type_is_answered_with_the_nearest():
    assert find_architecture("bert-1.3b") is ARCHITECTURES["bert-1.3b"]
    with pytest.raises(ValueError, match=r"no architecture 'bert-1\.3'; nearest: bert-1\.3b"):
        find_architecture("bert-1.3")
