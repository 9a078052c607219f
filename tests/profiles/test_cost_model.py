"""The cost model and the profiles made of it: what they must agree with, and how they behave."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest

from beta_jax.profiles import cost_model
from beta_jax.profiles.architectures import ARCHITECTURES, Architecture
from beta_jax.profiles.cost_model import even_pieces, load_cost_model, pieces
from beta_jax.profiles.profile import ProfileError, load_profile
from beta_jax.types import GB, ParallelConfig

DATA = pathlib.Path(__file__).resolve().parents[2] / "data"
MODELS = {name: load_cost_model(name) for name in ("v100", "rtx3090")}
PROFILES = {name: load_profile(name) for name in MODELS}
V100, PROFILE = MODELS["v100"], PROFILES["v100"]
DEGREES = [(op, pp) for op in (1, 2, 4, 8) for pp in (1, 2, 4, 8, 16, 32)]
TABLE_1 = {"bert-1.3b": .151, "bert-2.6b": .238, "bert-6.7b": .395,
           "moe-1.3b": .150, "moe-2.4b": .171, "moe-5.3b": .234}  # fmt: skip


def latency_s(name, op, pp, batch=1, chip="v100"):
    return PROFILES[chip].stage_latency_s(name, ParallelConfig(op, pp), batch)


def steps(name, *, op=1, pp=1):
    """Pairs of profiled degrees, the second with the op or pp of the first multiplied."""
    for a in DEGREES:
        b = a[0] * op, a[1] * pp
        if (name, ParallelConfig(*a)) in PROFILE and (name, ParallelConfig(*b)) in PROFILE:
            yield a, b


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_profiles_are_what_the_module_makes(name, tmp_path, monkeypatch):
    made = tmp_path / "made.json"
    monkeypatch.setattr(sys, "argv", ["cost_model", name, "--out", str(made)])
    cost_model.main()
    assert made.read_bytes() == (DATA / "profiles" / f"{name}.json").read_bytes()


def test_all_types_and_configurations_that_a_device_can_hold_are_there():
    assert set(PROFILE.types) == {*TABLE_1, "bert-15b", "bert-103.5b", "moe-7.1b"}
    fewest = {"bert-15b": 2, "bert-103.5b": 16}
    for name in PROFILE.types:
        expected = {d for d in DEGREES if d[0] * d[1] >= fewest.get(name, 1)}
        assert {config[:2] for config in PROFILE.configs(name)} == expected
        for config in PROFILE.configs(name):
            assert PROFILE.batch_sizes(name, config) == (1, 2, 4, 8, 16)


def test_single_device_latencies_are_those_of_table_1():
    for name, published_s in TABLE_1.items():
        assert PROFILE.single_device_latency_s(name) == pytest.approx(published_s, rel=0.01)
    assert PROFILE.single_device_latency_s("bert-103.5b") == 4.6
    assert latency_s("bert-103.5b", 1, 16).sum() == pytest.approx(4.6, rel=0.001)


def test_derived_latencies_are_plausible():
    assert 0.395 < PROFILE.single_device_latency_s("bert-15b") < 4.6
    assert 0.171 < PROFILE.single_device_latency_s("moe-7.1b") < 0.4


@pytest.mark.parametrize(
    ("name", "devices", "fits"),
    [
        ("bert-6.7b", 1, True),
        ("moe-7.1b", 1, False),
        ("moe-7.1b", 2, True),
        ("bert-15b", 2, False),
        ("bert-15b", 4, True),
        ("bert-103.5b", 16, True),
    ],
)
def test_memory_facts(name, devices, fits):
    config = ParallelConfig(1, devices)
    assert (PROFILE.weight_bytes(name, config).max() <= 13 * GB) == fits


def test_bert_103b_does_not_fit_8_devices():
    assert all(config.num_devices >= 16 for config in PROFILE.configs("bert-103.5b"))
    assert V100.stage_weight_bytes("bert-103.5b", ParallelConfig(1, 8)).max() > 16 * GB
    for op in (1, 2, 4, 8):  # the manual choices of section 6.3
        config = ParallelConfig(op, 16 // op)
        assert PROFILE.weight_bytes("bert-103.5b", config).max() <= 13 * GB


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pieces_weigh_what_the_model_does(name):
    """But for the tables of positions and the norm of the output, which are left out."""
    architecture = ARCHITECTURES[name]
    whole = sum(map(architecture.num_weights, range(architecture.layers + 1)))
    for part in ("embedding", "output"):
        of = architecture.weights(part)
        whole -= sum(weight.size for name, weight in of.items() if name != "token")
    assert pieces(architecture)[:, cost_model.WEIGHTS].sum() == whole
    assert (pieces(architecture) >= 0).all()


def test_an_even_cut_has_equally_many_layers_and_the_embeddings_at_its_ends():
    shape = ARCHITECTURES["bert-1.3b"]
    assert even_pieces(shape, 4) == (13, 12, 12, 13)
    assert even_pieces(shape, 1) == (len(pieces(shape)),)
    with pytest.raises(ValueError, match="24 layers cannot be cut into 25 stages"):
        even_pieces(shape, 25)


@pytest.mark.parametrize("name", PROFILE.types)
def test_single_devices_hold_the_model_once_and_operator_parallel_ones_some_of_it_twice(name):
    whole = V100.stage_weight_bytes(name, ParallelConfig(1, 1)).sum()
    for config in PROFILE.configs(name):
        held = PROFILE.weight_bytes(name, config).sum() * config.op
        if config.op == 1 or config.pp == 1:
            assert held == pytest.approx(whole, rel=1e-6)
        else:
            assert whole * (1 - 1e-6) <= held < whole * config.op


def test_weights_are_replicated_where_there_is_room_only():
    config = ParallelConfig(4, 2)
    fullest = V100.stage_weight_bytes("bert-6.7b", config)
    assert 4 * fullest.sum() == pytest.approx(27.5 * GB, rel=0.01)
    assert fullest.max() / fullest.mean() == pytest.approx(1.54, rel=0.01)
    small = dataclasses.replace(V100, device_gib=4.0)
    even = small.stage_weight_bytes("bert-6.7b", config)
    assert even == pytest.approx(V100.stage_weight_bytes("bert-6.7b", ParallelConfig(1, 2)) / 4)
    slower_s, faster_s = (model.stage_latency_s("bert-6.7b", config, 1) for model in (small, V100))
    assert slower_s[1] > faster_s[1] and slower_s[0] == pytest.approx(faster_s[0])


@pytest.mark.parametrize("name", PROFILE.types)
def test_operator_parallelism_is_faster_but_wastes_devices(name):
    for (op, pp), (wider, _) in steps(name, op=2):
        before, after = latency_s(name, op, pp).sum(), latency_s(name, wider, pp).sum()
        assert before / 2 < after < before


def test_over_pcie_operator_parallelism_is_slower_than_one_device():
    for name in ("bert-1.3b", "bert-2.6b", "bert-6.7b"):
        alone_s = latency_s(name, 1, 1, chip="rtx3090").sum()
        for op in (2, 4):
            assert latency_s(name, op, 1, chip="rtx3090").sum() > 1.5 * alone_s


@pytest.mark.parametrize("name", PROFILE.types)
def test_a_pipeline_takes_the_time_of_one_device_and_of_its_hand_overs(name):
    pieces_s = V100.piece_latency_s(name)
    shape = V100.architecture(name)
    handed = V100.bytes_per_value * shape.sequence * shape.hidden
    handed *= V100.numbers[f"type.{name}"].value * V100.numbers["handover_byte_s"].value
    for pp in (1, 2, 8, 32):
        stages_s = V100.cut_latency_s(name, cut := V100.cut(name, pp))
        assert sum(cut) == len(pieces_s) and min(cut) > 0
        handovers_s = (pp - 1) * (V100.numbers["handover_s"].value + handed)
        assert stages_s.sum() == pytest.approx(pieces_s.sum() + handovers_s)
        expected = V100.stage_latency_s(name, ParallelConfig(1, pp), 1)
        np.testing.assert_allclose(stages_s, expected)


@pytest.mark.parametrize("name", PROFILE.types)
def test_a_batch_costs_less_than_its_requests_one_by_one(name):
    for config in PROFILE.configs(name):
        for batch in (1, 2, 4, 8):
            small, large = (PROFILE.stage_latency_s(name, config, b) for b in (batch, 2 * batch))
            # The output embedding alone, a stage of long pipelines, has nothing to launch once.
            assert ((small < large) & (large <= 2 * small + 1e-7)).all()
            memory = [PROFILE.act_bytes(name, config, b) for b in (batch, 2 * batch)]
            assert (memory[0] < memory[1]).all()


def test_a_model_is_written_and_read_unchanged(tmp_path):
    own = Architecture(sequence=8, hidden=16, layers=2, heads=2, vocabulary=32)
    model = dataclasses.replace(V100, shapes={"mine": own}, note="a note")
    file = tmp_path / "model.json"
    file.write_text(model.to_json())
    assert load_cost_model(file) == model


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": "other"}, "not 'beta_jax.cost_model' version 1"),
        ({"numbers": {}}, "numbers: expected flop_s, score_flop"),
        ({"cuts": []}, "cuts"),
        ({"numbers": None}, "numbers"),
    ],
)
def test_a_file_that_is_no_model_is_refused(change, expected, tmp_path):
    document = json.loads(V100.to_json()) | change
    file = tmp_path / "model.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=r"model\.json: ") as error:
        load_cost_model(file)
    assert "\n" not in str(error.value)


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(ProfileError, match=r"no cost model of that name is shipped; .*v100$"):
        load_cost_model("a100")
    with pytest.raises(ValueError, match=r"no architecture 'bert-2'; nearest: bert-2\.6b"):
        V100.profile(["bert-2"])
    with pytest.raises(ValueError, match=r"bert-103\.5b fits no number of devices of 16 GiB"):
        V100.profile(["bert-103.5b"], ops=(1,), pps=(1, 2))
