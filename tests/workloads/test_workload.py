"""Rates are shared out, traffic is made and merged, and files of requests are read with care."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from beta_jax.types import Model, Workload
from beta_jax.workloads.processes import Gamma
from beta_jax.workloads.requests import WorkloadError, read_requests, write_requests
from beta_jax.workloads.sampling import sample_arrivals
from beta_jax.workloads.synthesis import merge, split_rate, synthesize, synthesize_many

NAMES = ["a", "b", "big model, v2"]
MODELS = [Model("a", "t", 1.0, 3.0, 4.0), Model("b", "t", 1.0, 0.0), Model("c", "t", 1.0, 9.0, 1.0)]


def same(one: Workload, other: Workload) -> bool:
    return np.array_equal(one.arrival, other.arrival) and np.array_equal(one.model, other.model)


def test_named_splits():
    assert split_rate(6.0, 3).tolist() == [2.0, 2.0, 2.0]
    np.testing.assert_allclose(
        split_rate(3.0, 4, "power_law") ** -2, np.arange(1, 5) * 0.8616, 1e-3
    )
    weights = split_rate(3 + 1 / 8, 8, "triangle_decay")
    assert weights.tolist() == [1, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 8]
    assert split_rate(8.0, 3, [1, 0, 3]).tolist() == [2.0, 0.0, 6.0]
    assert split_rate(8.0, 2, np.array([0.5, 0.5])).tolist() == [4.0, 4.0]
    assert split_rate(0.0, 2, "power_law").tolist() == [0.0, 0.0]


@given(
    total=st.floats(0, 1e6),
    count=st.integers(1, 300),
    how=st.sampled_from(["uniform", "power_law", "triangle_decay"]),
)
def test_a_split_adds_up_and_does_not_increase(total, count, how):
    rates = split_rate(total, count, how)
    assert rates.shape == (count,)
    assert rates.sum() == pytest.approx(total)
    assert (np.diff(rates) <= 0).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((-1.0, 3), "total rate"),
        ((np.nan, 3), "total rate"),
        ((1.0, 0), "num_models must be >= 1"),
        ((1.0, 3, "zipf"), "got 'zipf'"),
        ((1.0, 3, [1.0, 2.0]), "3 shares"),
        ((1.0, 2, [1.0, -2.0]), "2 shares"),
        ((1.0, 2, [np.inf, 1.0]), "2 shares"),
        ((1.0, 2, [0.0, 0.0]), "2 shares"),
    ],
)
def test_a_bad_split_is_refused(args, message):
    with pytest.raises(ValueError, match=message):
        split_rate(*args)


def test_equal_arrivals_merge_in_model_order():
    workload = merge(
        [np.array([1.0, 2.0, 2.0]), np.array([]), np.array([0.5, 2.0]), np.array([1.0])]
    )
    assert workload.model.tolist() == [2, 0, 3, 0, 0, 2]
    assert workload.arrival_s.tolist() == [0.5, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert len(merge([])) == 0


@pytest.mark.parametrize("process", ["gamma", "poisson", "deterministic"])
@pytest.mark.parametrize("rng", ["jax", "legacy"])
def test_synthesize_gives_each_model_its_traffic(process, rng):
    workload = synthesize(MODELS, duration_s=400.0, start_s=1000.0, process=process, rng=rng)
    number = np.bincount(workload.model, minlength=3)
    assert number[1] == 0
    assert number[0] == pytest.approx(1200, abs=600)
    assert number[2] == pytest.approx(3600, abs=240)
    assert (workload.arrival >= 1000e9).all() and (workload.arrival < 1400e9).all()
    if process == "deterministic":
        assert number.tolist() == [1200, 0, 3600]
    if process == "gamma":
        streams = sample_arrivals(
            [Gamma(m.rate_rps, m.cv) for m in MODELS], duration_s=400.0, start_s=1000.0, rng=rng
        )
        assert same(workload, merge(streams))


@pytest.mark.parametrize("rng", ["jax", "legacy"])
def test_many_seeds_are_as_single_ones(rng):
    many = synthesize_many(MODELS, seeds=[7, 0, 7], duration_s=30.0, rng=rng)
    for seed, workload in zip([7, 0, 7], many, strict=True):
        assert same(workload, synthesize(MODELS, seed=seed, duration_s=30.0, rng=rng))
    assert not same(many[0], many[1])
    assert synthesize_many(MODELS, seeds=[], duration_s=30.0, rng=rng) == []


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Model("m", "t", 1.0), {}, "model m: arrival rate"),
        (Model("m", "t", 1.0, 1.0, 0.0), {}, "model m: CV"),
        (Model("m", "t", 1.0, 1.0), {"process": "weibull"}, "got 'weibull'"),
        (Model("m", "t", 1.0, 1.0), {"rng": "mersenne"}, "got 'mersenne'"),
        (Model("m", "t", 1.0, 1.0), {"duration_s": -1.0}, "duration"),
    ],
)
def test_impossible_traffic_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        synthesize([model], **{"duration_s": 1.0, **options})


def test_random_work_is_that_of_its_distribution():
    work = scipy.stats.gamma(2, scale=0.5)
    plain = synthesize(MODELS, seed=3, duration_s=400.0)
    first, other = synthesize_many(MODELS, seeds=[3, 4], duration_s=400.0, work=work)
    assert np.array_equal(first.arrival, plain.arrival) and plain.work is None
    assert np.array_equal(first.model, plain.model)
    drawn = first.work / 65536
    assert scipy.stats.kstest(drawn, work.cdf).pvalue > 0.01
    assert not np.array_equal(drawn[: len(other)], other.work[: len(drawn)] / 65536)
    alone = synthesize(MODELS[:1], seed=3, duration_s=400.0, work=work)
    assert np.array_equal(alone.work, first.of_models([0]).work)  # whatever is beside it
    with pytest.raises(ValueError, match="work must be > 0"):
        synthesize(MODELS, duration_s=400.0, work=scipy.stats.norm())


@given(
    requests=st.lists(st.tuples(st.integers(0, 4 * 10**15), st.integers(0, 2)), max_size=30).map(
        sorted
    )
)
def test_requests_survive_a_file(requests, tmp_path_factory):
    path = tmp_path_factory.mktemp("requests") / "r.csv"
    ticks, models = np.array(requests, np.int64).reshape(-1, 2).T
    work = (ticks * 7919 + 1) % 2**31 if len(ticks) % 2 else None
    workload = Workload(ticks, models, work)
    write_requests(path, workload, NAMES)
    assert same(read_requests(path, NAMES), workload)
    with open(path, newline="") as file:
        assert next(csv.reader(file)) == ["arrival_s", "model", "work"][: 2 + (work is not None)]


def test_order_line_ends_marks_and_other_columns_do_not_matter(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(
        b"\xef\xbb\xbfmodel, arrival_s ,tokens\r\nb,2.5,9\r\n\r\n"
        b'"big model, v2",1e-9,\r\na,2.5,1\r\n'
    )
    workload = read_requests(path, NAMES)
    assert workload.arrival.tolist() == [1, 2_500_000_000, 2_500_000_000]
    assert workload.model.tolist() == [2, 1, 0]  # equal times as in the file


HEADER = b"arrival_s,model\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: expected one column 'arrival_s', found nothing"),
        (b"time,model\n1,a\n", "line 1: expected one column 'arrival_s'"),
        (b"arrival_s,name\n1,a\n", "line 1: expected one column 'model'"),
        (b"arrival_s,model,model\n1,a,a\n", "line 1: expected one column 'model'"),
        (HEADER + b"1,a\n2,x\n", "line 3: unknown model 'x'"),
        (HEADER + b"1,a\n\nlate,a\n", "line 4: arrival_s .* found 'late'"),
        (HEADER + b",a\n", "line 2: arrival_s"),
        (HEADER + b"nan,a\n", "line 2: arrival_s"),
        (HEADER + b"inf,a\n", "line 2: arrival_s"),
        (HEADER + b"-0.5,a\n", "line 2: arrival_s"),
        (HEADER + b"1700000000000,a\n", "line 2: arrival_s"),  # milliseconds
        (HEADER + b"1,a\n2\n", "line 3: expected 2 fields, found 1"),
        (HEADER + b"1,a,7\n", "line 2: expected 2 fields, found 3"),
        (HEADER + b'1,"a', "line 2: unexpected end of data"),
        (b"arrival_s,work,model,work\n", "line 1: the column 'work' is there twice"),
        *(
            (
                b"arrival_s,model,work\n1,a,1\n2,a," + bad + b"\n",
                "line 3: work must be > 0 and < 32768",
            )
            for bad in (b"", b"0", b"-1", b"nan", b"inf", b"32768", b"much")
        ),
        (HEADER + b"1,\xff\xfe\n", "not a text file in UTF-8"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path, content, message):
    path = tmp_path / "requests.csv"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=message) as error:
        read_requests(path, NAMES)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(WorkloadError, match=r"gone\.csv: No such file"):
        read_requests(tmp_path / "gone.csv", NAMES)
    for workload, names in (
        (Workload(np.array([0]), np.array([3])), NAMES),
        (Workload(np.array([0]), np.array([-1])), NAMES),
        (Workload(np.array([-1]), np.array([0])), NAMES),
        (Workload(np.array([0]), np.array([0])), ["a", "a"]),
    ):
        with pytest.raises(WorkloadError):
            write_requests(tmp_path / "r.csv", workload, names)
    assert not list(tmp_path.iterdir())


# --- the published traffic -----------------------------------------------------------------------


def legacy(models: list[dict], duration_s: float) -> Workload:
    streams = sample_arrivals(
        [Gamma(model["rate"], model["cv"]) for model in models],
        duration_s=duration_s,
        streams=[model["seed"] for model in models],
        rng="legacy",
    )
    return merge(streams)


def stored(shared, name: str) -> Workload:
    with np.load(shared / "golden" / name) as data:
        return Workload.from_seconds(data["arrivals"], data["model_ids"])


def golden(shared, *folders: str) -> list[dict]:
    paths = [p for folder in folders for p in sorted((shared / "golden" / folder).glob("*.json"))]
    return [json.loads(path.read_text()) for path in paths]


def test_legacy_traffic_is_the_published_one(shared):
    compared = set()
    for case in golden(shared, "cases", "policies"):
        description, models = case["description"], case["models"]
        duration_s = description.get("duration") or description["case"]["duration"]
        everyone = models + case.get("unregistered_models", [])
        name = case["workload"]["file"]
        if name in compared or models[0]["cv"] == 0:  # the latter: next test
            continue
        workload = legacy(everyone, duration_s)
        served = np.where(workload.model < len(models), workload.model, -1)
        assert same(Workload(workload.arrival, served), stored(shared, name)), case["id"]
        compared.add(name)
        train = case.get("train_workload", {"source": "case"})
        if train["source"] == "gen_train_workload" and train["file"] not in compared:
            duration_s = max(100, 30000 / sum(model["rate"] for model in models))
            assert same(legacy(models, duration_s), stored(shared, train["file"])), case["id"]
            compared.add(train["file"])
    assert len(compared) == 20


def test_deterministic_traffic_is_the_published_one_but_for_the_order_of_ties(shared):
    (case,) = (c for c in golden(shared, "cases") if c["models"][0]["cv"] == 0)
    models = [Model(m["name"], m["type"], m["slo"], m["rate"]) for m in case["models"]]
    ours = synthesize(models, duration_s=case["description"]["duration"], process="deterministic")
    theirs = stored(shared, case["workload"]["file"])
    order = np.lexsort((theirs.model, theirs.arrival))  # theirs: order of an unstable sort
    assert same(ours, Workload(theirs.arrival[order], theirs.model[order]))


def test_published_rates_and_numbers_of_requests(shared):
    for case in golden(shared, "policies"):
        point = case["description"]["case"]
        rates = split_rate(point["total_rate"], len(case["models"]), point["rate_distribution"])
        assert rates.tolist() == [model["rate"] for model in case["models"]], case["id"]

    sample = json.loads((shared / "golden" / "published_sample.json").read_text())["rows"]
    with open(shared / "golden" / "sec6_3" / "summary.csv", newline="") as file:
        large = list(csv.DictReader(file))
    points = {
        (float(row["total_rate"]), int(row["num_models"]), float(row["cv"]),
         float(row["duration"]), int(row["num_requests"]))
        for row in sample
    } | {
        (float(row["total_rate"]), 4, float(row["cv"]), 1200.0, int(row["num_requests"]))
        for row in large
    }  # fmt: skip
    for total, count, cv, duration_s, expected in sorted(points):
        rates = split_rate(total, count, "power_law")
        models = [Model(f"m{i}", "t", 1.0, rate, cv) for i, rate in enumerate(rates)]
        assert len(synthesize(models, duration_s=duration_s, rng="legacy")) == expected


@pytest.mark.parametrize("name", ["gamma", "pareto", "mmpp"])
def test_named_processes_have_the_rate_and_the_burstiness_asked_for(name: str):
    """Counts over long times vary as `cv**2` says, whatever the process."""
    rate_rps, cv, bin_s, bins = 20.0, 2.0, 20.0, 2000
    model = Model("m", "t", 1.0, rate_rps, cv)
    arrival_s = synthesize([model], duration_s=bin_s * bins, process=name, seed=4).arrival_s
    counts = np.histogram(arrival_s, bins, (0, bin_s * bins))[0]
    standard_error = cv * (rate_rps * bin_s / bins) ** 0.5
    assert abs(counts.mean() - rate_rps * bin_s) < 4 * standard_error
    assert 0.8 < counts.var() / counts.mean() / cv**2 < 1.15
    if name == "pareto":
        gaps_s = np.diff(arrival_s)
        assert 0.75 < gaps_s.std() / gaps_s.mean() / cv < 1.25
        assert (gaps_s > 20 / rate_rps).mean() > np.exp(-20)  # a tail beyond exponential


@pytest.mark.parametrize("name", ["pareto", "mmpp"])
def test_bursty_processes_need_a_cv_above_one(name: str):
    calm = Model("m", "t", 1.0, 2.0, 1.0)
    with pytest.raises(ValueError, match=f"model m: CV of {name} arrivals must be > 1"):
        synthesize([calm], duration_s=1.0, process=name)
    silent = Model("m", "t", 1.0, 0.0, 2.0)
    assert len(synthesize([silent], duration_s=100.0, process=name)) == 0
    with pytest.raises(ValueError, match="rng='legacy' has no"):
        synthesize([Model("m", "t", 1.0, 2.0, 2.0)], duration_s=1.0, process=name, rng="legacy")


class Stuck:
    """A process whose gaps are all 0."""

    mean_gap_s = 1.0

    def gaps_s(self, exponentials: np.ndarray) -> np.ndarray:
        return 0 * exponentials


def test_gaps_of_ones_own_must_be_gaps():
    with pytest.raises(ValueError, match=r"Stuck.*gaps must be seconds >= 0"):
        synthesize([Model("a", "t", 1.0, 1.0)], duration_s=9.0, process=lambda *_: Stuck())
