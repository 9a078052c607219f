"""The fit: it finds what rows were made of, says what it does not know, and meets real rows."""

from __future__ import annotations

import numpy as np
import pytest

from beta_jax.profiles.calibration import Row, calibrate, measured_rows
from beta_jax.profiles.cost_model import CHIP, Case, CostModel, load_cost_model
from beta_jax.profiles.profile import Profile, ProfileError, load_profile
from beta_jax.types import ParallelConfig

V100, RTX3090 = load_cost_model("v100"), load_cost_model("rtx3090")
DEGREES = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (8, 1)]


def fit_v100(rows):
    """All fits know the same types and degrees, and so are one compiled program."""
    known_s = {Case("bert-103.5b", ParallelConfig(1, 16), 1): 4.6}
    return calibrate(
        rows,
        device_gib=16,
        others=[name for name in V100.types if name != "bert-103.5b"],
        known_s=known_s,
        launches_from=RTX3090,
    )


def made(model: CostModel, types, noise: float = 0.0, batches=(1,)) -> list[Row]:
    """Rows as the model has them, all stages of each times a random factor."""
    random = np.random.default_rng(0)
    return [
        Row(
            case := Case(name, ParallelConfig(op, pp), batch),
            model.stage_latency_s(*case) * np.exp(noise * random.standard_normal()),
            model.stage_weight_bytes(name, case.config),
        )
        for name in types
        for op, pp in DEGREES
        for batch in batches
    ]


SMALL = [name for name in V100.types if name not in ("bert-15b", "bert-103.5b", "moe-7.1b")]


def test_what_rows_were_made_of_is_found_again():
    fitted = fit_v100(made(V100, SMALL, noise=0.01))
    for each in fitted.compare(made(V100, SMALL)):
        assert abs(each.latency_error) < 0.02 and abs(each.longest_error) < 0.03
        assert abs(each.weight_error) < 0.01
        assert not each.contradicts
    assert fitted.model.replicated["dense"] == pytest.approx(V100.replicated["dense"], abs=0.02)
    for name in SMALL:
        assert fitted.model.cuts[name] == V100.cuts[name]
    assert 0.003 < fitted.noise[0] < 0.02 and 0.003 < fitted.noise[1] < 0.02


def test_a_row_that_contradicts_the_rest_is_named_and_bends_nothing():
    rows = made(V100, SMALL)
    odd = next(
        n for n, row in enumerate(rows) if row.case == Case("moe-1.3b", ParallelConfig(4, 2), 1)
    )
    rows[odd] = rows[odd]._replace(stages_s=1.4 * rows[odd].stages_s)
    compared = fit_v100(rows).compare()
    assert [n for n, each in enumerate(compared) if each.contradicts] == [odd]
    assert compared[odd].latency_error == pytest.approx(1 / 1.4 - 1, abs=0.03)
    assert max(abs(e.latency_error) for n, e in enumerate(compared) if n != odd) < 0.02


def test_predictions_say_what_they_go_beyond():
    rows = [row for row in made(V100, SMALL) if row.case.config.op < 8]
    fitted = fit_v100(rows)
    profile = fitted.model.profile([*SMALL, "bert-15b"], batches=(1, 2))
    found = {each.case: each for each in fitted.predict(profile)}
    near = found[Case("bert-1.3b", ParallelConfig(2, 2), 1)]
    assert near.measured and near.beyond == () and near.error < 0.05
    assert near.latency_s == pytest.approx(V100.stage_latency_s(*near.case).sum(), rel=0.02)
    far = found[Case("bert-1.3b", ParallelConfig(8, 16), 2)]
    assert not far.measured
    assert far.beyond == ("op 8 > 4", "pp 16 > 8", "devices 128 > 8", "batch 2 > 1")
    assert far.error > 2 * near.error
    other = found[Case("bert-15b", ParallelConfig(2, 2), 1)]
    assert other.beyond == ("type not measured",) and other.error > 0.1


def test_numbers_that_the_rows_do_not_tell_stay_as_assumed():
    numbers = fit_v100(
        [r for r in made(V100, SMALL) if r.case.type.startswith("bert")]
    ).model.numbers
    for name in ("expert_flop", "expert_launch"):
        assert not numbers[name].measured
        assert numbers[name].value == pytest.approx(CHIP[name].value, rel=0.01)
        assert numbers[name].error == pytest.approx(CHIP[name].spread, rel=0.01)
    assert not numbers["launch_s"].measured  # told by the other chip
    assert numbers["launch_s"].value == pytest.approx(RTX3090.numbers["launch_s"].value, rel=0.1)
    assert numbers["type.bert-2.6b"].measured and numbers["output_flop"].measured
    assert not numbers["type.bert-15b"].measured
    assert numbers["type.bert-15b"].value == numbers["type.bert-6.7b"].value  # the nearest in size


def test_rows_that_cannot_be_fitted_are_refused():
    rows = made(V100, ["bert-1.3b"])
    with pytest.raises(ProfileError, match="4 rows are too few to fit: at least 5 are needed"):
        fit_v100(rows[:4])
    strange = [row._replace(case=row.case._replace(type="bert-2")) for row in rows]
    with pytest.raises(ProfileError, match=r"no architecture 'bert-2'; nearest: bert-2\.6b"):
        fit_v100(strange)
    document = load_profile("v100").to_dict()
    for wrong in (float("nan"), -0.1, 0.0):
        document["types"]["bert-1.3b"]["configs"][0]["stage_latency_s"]["1"] = [wrong]
        with pytest.raises(ProfileError, match="stage_latency_s, batch 1, stage 0: must be finite"):
            Profile.from_dict(document)


# Rows that were measured.


def quantiles(errors):
    return np.quantile(np.abs(errors), [0.5, 0.9])


@pytest.fixture(scope="module")
def measured(shared):
    return load_profile(shared / "data" / "profiles" / "v100_measured.json")


def test_v100_rows(measured):
    """The shipped numbers are those of the fit, and as near to the rows as is said of them."""
    fitted = fit_v100(measured)
    for name, estimate in V100.numbers.items():
        assert fitted.model.numbers[name].value == pytest.approx(estimate.value, rel=0.01)
    assert (fitted.model.cuts, fitted.model.replicated) == (V100.cuts, V100.replicated)
    profile = load_profile("v100")
    sums, longest, fullest, at_op_1 = [], [], [], []
    for row in measured_rows(measured):
        name, config, batch = row.case
        ours = profile.stage_latency_s(name, config, batch)
        sums.append(ours.sum() / row.stages_s.sum() - 1)
        longest.append(ours.max() / row.stages_s.max() - 1)
        weight = profile.weight_bytes(name, config).max() / row.weight_bytes.max() - 1
        fullest.append(weight)
        if config.op == 1:
            at_op_1.append(weight)
    assert len(sums) == 69
    for errors in (sums, longest):
        median, high = quantiles(errors)
        assert median < 0.02 and high < 0.10  # asked for: 0.05 and 0.15
    median, high = quantiles(fullest)
    assert median < 0.005 and high < 0.05  # asked for: 0.10 and 0.25
    assert np.abs(at_op_1).max() < 0.01
    contradicting = {each.row.case[:2] for each in fitted.compare() if each.contradicts}
    assert contradicting == {(name, ParallelConfig(4, 2)) for name in ("moe-1.3b", "moe-2.4b")}


def test_five_v100_rows_of_each_type_tell_the_others(measured):
    rows = measured_rows(measured)
    for seed in range(3):
        random, kept = np.random.default_rng(seed), []
        for name in measured.types:
            own = [row for row in rows if row.case.type == name]
            kept += [own[n] for n in random.permutation(len(own))[:5]]
        fitted = fit_v100(kept)
        rest = [row for row in rows if row.case not in {row.case for row in kept}]
        compared = fitted.compare(rest)
        for of in ("latency_error", "longest_error"):
            assert np.median([abs(getattr(each, of)) for each in compared]) < 0.08


def test_rtx_3090_rows(shared):
    """Operator parallelism is slower than one device there, stages are uneven, batches grow."""
    measured = load_profile(shared / "data" / "profiles" / "rtx3090_measured.json")
    fitted = calibrate(measured, device_gib=24, sequence=1024)
    for name, estimate in RTX3090.numbers.items():
        assert fitted.model.numbers[name].value == pytest.approx(estimate.value, rel=0.01)
    compared = fitted.compare()
    assert len(compared) == 115 and not any(each.contradicts for each in compared)
    for of in ("latency_error", "longest_error"):
        median, high = quantiles([getattr(each, of) for each in compared])
        assert median < 0.02 and high < 0.06  # asked for: 0.15
    for batch in (1, 16):
        own = [each.latency_error for each in compared if each.row.case.batch == batch]
        assert quantiles(own)[0] < 0.03
