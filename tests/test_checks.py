"""What is no number, no whole number or no array of them is refused by name, not cut or guessed."""

from __future__ import annotations

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from beta_jax import checks, load_placement, load_profile
from beta_jax.types import Model, Workload

NO_NUMBERS = (None, "1", b"1", [], [1.0], 1j, np.ones(2), np.array("x"), 10**400)
NO_ARRAYS = ([None], ["1"], [[1], [1, 2]], [1j], np.array([1], object), [10**400])


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_named(value):
    with pytest.raises(ValueError, match=r"^rate_rps "):
        checks.require_numbers(rate_rps=value)


@pytest.mark.parametrize(
    "value", [0, True, 0.5, math.nan, np.float32(1), np.int8(1), np.array(1), jnp.ones(()), 10**300]
)
def test_numbers_of_all_kinds_are_taken(value):
    checks.require_numbers(rate_rps=value)


@pytest.mark.parametrize("value", [None, 0.5, 1.0, "1", math.nan, -1, 6, 10**400, np.array(1)])
def test_what_is_no_whole_number_in_range_is_named(value):
    with pytest.raises(ValueError, match=r"^seeds must be "):
        checks.require_whole("seeds", value, 1, 5)


@pytest.mark.parametrize("values", NO_ARRAYS, ids=repr)
def test_what_is_no_array_of_numbers_is_named(values):
    with pytest.raises(ValueError, match=r"^shares must be numbers"):
        checks.floats("shares", values)


def test_whole_numbers_are_never_cut():
    for values in ([0.5], [math.nan], [2**31], [-(2**31) - 1]):
        with pytest.raises(ValueError, match=r"^model must be "):
            checks.whole_numbers("model", values, np.int32)
    assert checks.whole_numbers("model", [1.0, True], np.int32).tolist() == [1, 1]
    assert checks.whole_numbers("model", [], np.int32).dtype == np.int32
    with pytest.raises(ValueError, match="arrival must be whole numbers"):
        Workload(np.array([0.5]), np.array([0]))


def test_numbers_that_would_round_become_pythons():
    model = Model("a", "t", slo_s=np.float16(0.1), rate_rps=Fraction(1, 2), cv=2)
    assert [*map(type, (model.slo_s, model.rate_rps, model.cv))] == [float, float, int]
    assert hash(model) == hash(Model("a", "t", float(np.float16(0.1)), 0.5, 2))


def test_files_that_are_read_as_a_whole_have_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    path.write_bytes(b"[" + b" " * checks.MOST_BYTES)
    for load in (load_profile, load_placement):
        with pytest.raises(ValueError, match=rf"p\.json: refused: larger than {checks.MOST_BYTES}"):
            load(path)


def test_many_keys_are_no_reason_to_wait(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("{" + ",".join(f'"{number}": 0' for number in range(300_000)) + ', "7": 0}')
    with pytest.raises(ValueError, match="duplicate key '7'"):
        load_profile(path)
