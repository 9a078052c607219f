"""Placements as arrays and documents, and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import ParallelConfig, Placement
from beta_jax.placement.codec import Codec, group_from_document, groups_to_document

from instances import CONFIGS, placements


@given(st.lists(placements(4), max_size=4))
def test_arrays_and_back(lanes: list[Placement]):
    codec = Codec(CONFIGS, 4, 6)
    hosted, config = codec.encode(lanes)
    assert hosted.shape == (len(lanes), 6, 4) and config.shape == (len(lanes), 6)
    assert [codec.decode(*lane) for lane in zip(hosted, config, strict=True)] == lanes
    assert not hosted[config == codec.no_group].any()
    assert hosted.sum() == sum(placement.num_replicas for placement in lanes)


@given(placements(4))
def test_documents_and_back(placement: Placement):
    by_index = json.loads(json.dumps(groups_to_document(placement)))
    assert Placement(tuple(map(group_from_document, by_index))) == placement
    names = ["d", "c", "b", "a"]
    by_name = groups_to_document(placement, names.__getitem__)
    back = Placement(tuple(group_from_document(row, names.index) for row in by_name))
    assert back == placement


def test_what_cannot_be_encoded():
    codec = Codec([ParallelConfig(1, 1)], 2, 1)
    with pytest.raises(KeyError):
        codec.encode_groups([[(ParallelConfig(1, 2), (0,))]])
    with pytest.raises(ValueError, match="op and pp must be >= 1"):
        group_from_document({"op": 0, "pp": 1, "models": []})
    assert codec.decode(np.zeros((1, 2)), [codec.no_group]) == Placement()
