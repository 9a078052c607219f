"""Calls of the public API with odd numbers, texts and arrays in place of one or two arguments.

An argument that is not a number, NaN among them, is never taken for one; the few that may be NaN or
None are told here. Objects and files are not replaced: type checkers know the former, `files` has
the latter.
"""

from __future__ import annotations

import decimal
import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import beta_jax
from beta_jax import queueing, traces
from beta_jax.planning import Fitted, Generated, Log

from .damage import NUMBERS
from .files import PROFILE
from .hunt import Defect, Target, require_short

NOT_NUMBERS = (
    *(None, "", "1", "nan", "x", b"1", [], [1.0], [1.0, 2.0], {}, {1}, 1j, object),
    *(np.zeros(0), np.ones(2), np.ones((2, 2)), np.array("x"), np.datetime64("2020-01-01")),
)
NUMPY = (
    *(np.float32(0.5), np.float16(2), np.int8(-1), np.int64(2), np.uint64(2**64 - 1), np.True_),
    *(np.float64("nan"), np.float32("inf"), np.array(2), np.array(0.5), np.array(np.nan)),
    *(decimal.Decimal("0.5"), decimal.Decimal("NaN")),
)
ARRAYS = (
    *([math.nan], [1.0, math.nan], [math.inf], [-1.0], [0, 0], [2**62, 2**63], [2, 1], [1e300]),
    *([None], ["a"], [[1, 2]], [1, [2]], range(3), (0,), [True, False], np.array([], np.float64)),
    *(np.array([1, 2], np.uint8), np.array([0.5, 1.5]), np.ones((1, 2)), np.array([1j, 2])),
    np.array([1, 2], object),
)
TEXTS = ("", "x", "a" * 300, "a\nb\nc\nd\ne", "gamma", "\0")
ODD = st.one_of(*map(st.sampled_from, (NUMBERS, NOT_NUMBERS, NUMPY, ARRAYS, TEXTS)))


class Call(NamedTuple):
    """A function and arguments that are good; numbers: names of those that must be one.

    maybe_nan, maybe_none: those that may be NaN, or None, as documented.
    """

    call: Callable[..., Any]
    good: Mapping[str, Any]
    numbers: Sequence[str] = ()
    texts: Sequence[str] = ()
    arrays: Sequence[str] = ()
    maybe_nan: Sequence[str] = ()
    maybe_none: Sequence[str] = ()


class Odd(NamedTuple):
    """A call by its name, and the arguments that replace good ones."""

    name: str
    odd: dict[str, Any]


@functools.cache
def _profile() -> beta_jax.Profile:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.json"
        path.write_text(json.dumps(PROFILE))
        return beta_jax.load_profile(path)


MODELS = tuple(beta_jax.Model(name, "t", slo_s=1.0, rate_rps=2.0, cv=2.0) for name in "ab")
CLUSTER = beta_jax.Cluster(2)
PROBLEM = beta_jax.Problem(MODELS, CLUSTER, _profile())
LOADING = beta_jax.Problem(MODELS, beta_jax.Cluster(2, load_bandwidth_bytes_per_s=1e9), _profile())
PLACEMENT = beta_jax.Placement([beta_jax.Group((1, 2), (0, 1))])
WORKLOAD = beta_jax.Workload.from_seconds([0, 0.1, 0.2, 1, 2], [0, 1, 0, 1, 0])
SEVERAL = {"pools": (), "num_devices": 2, "memory_bytes": 2e9, "devices_per_node": 2}
ARCHITECTURE = {
    **{"block": "llama", "sequence": 8, "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 2},
    **{"feed_forward": 64, "vocabulary": 10, "experts": 2, "experts_per_token": 1},
    "expert_every": 1,
}
QUEUE = {"rate_rps": 1.0, "service_s": 0.3}
STAGES = {"rate_rps": 1.0, "latency_s": 0.3, "bottleneck_s": 0.2}


@functools.cache
def _outcome() -> beta_jax.Outcome:
    (outcome,) = beta_jax.simulate(PROBLEM, PLACEMENT, WORKLOAD, outputs="requests")
    return outcome


@functools.cache
def _trace() -> traces.Trace:
    return traces.ArrivalTrace(
        "made", "requests", ("a", "b"), np.arange(40.0), np.arange(40, dtype=np.int32) % 2
    )


def _failed(**failure: Any) -> Any:
    return beta_jax.simulate(LOADING, PLACEMENT, WORKLOAD, failures=[beta_jax.Failure(**failure)])


def _grouped(op: Any, pp: Any, models: Any, devices: Any) -> Any:
    placement = beta_jax.Placement([beta_jax.Group((op, pp), models, devices)])
    return beta_jax.simulate(PROBLEM, placement, WORKLOAD)


def _scheduled(start_s: Any) -> Any:
    schedule = beta_jax.Schedule(start_s, (PLACEMENT, PLACEMENT))
    return beta_jax.simulate(PROBLEM, schedule, WORKLOAD)


def _dispatched(seed: Any) -> Any:
    rules = beta_jax.Rules(dispatch=beta_jax.power_of_two(seed))
    return beta_jax.simulate(
        beta_jax.Problem(MODELS, CLUSTER, _profile(), rules), PLACEMENT, WORKLOAD
    )


def _timed(start_s: Any, end_s: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return beta_jax.write_timeline(
            Path(folder) / "t.json", PROBLEM, PLACEMENT, _outcome(), arrived_s=(start_s, end_s)
        )


def _written(model_names: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return beta_jax.write_requests(Path(folder) / "r.csv", WORKLOAD, model_names)


def _merged(first: Any, second: Any) -> Any:
    return beta_jax.merge([first, second])


def _worked(prompt_tokens: Any) -> Any:
    latency_s = {"t": (np.array([8, 16]), np.array([0.1, 0.2]))}
    return beta_jax.PrefillTable(_profile(), 16, latency_s).work("t", prompt_tokens)


def _fitted(rate: Any, cv: Any, seed: Any) -> Any:
    fits = traces.Traffic(0.0, 10.0, np.ones((2, 2)), np.ones((2, 2)))
    return Fitted(fits).sample(MODELS, [seed], rate=rate, cv=cv)


def _logged(block_s: Any, rate: Any, seed: Any) -> Any:
    return Log(WORKLOAD, block_s).sample(MODELS, [seed], rate=rate)


def _generated(duration_s: Any, process: Any, rate: Any, cv: Any, seed: Any) -> Any:
    source = Generated(duration_s, process)
    return source.sample(MODELS, [seed], rate=rate, cv=cv)


def _bound(call: Callable[..., Any], *given: Any, **also: Any) -> Callable[..., Any]:
    return functools.partial(call, *given, **also)


SYNTHETIC = {"duration_s": 3.0, "process": "gamma", "rng": "jax", "start_s": 0.0}
REPLAYED = {
    **{"num_models": 2, "start": "0.0.0", "end": "0.0.1", "window_s": 60.0, "mapping": "stripe"},
    **{"process": "gamma", "rate_scale": 1.0, "cv_scale": 1.0, "seed": 0, "rng": "jax"},
}
LOCAL = {
    **{"budget_simulations": 4, "worst_share": 1.0, "fairness": 0.0, "seed": 0},
    **{"start_from": PLACEMENT, "max_bytes_moved": 1e9},
}
PLANNED = {"target": 0.5, "seeds": 2, "warmup_s": 0.0, "mtbf_h": 100.0, "mttr_h": 1.0}
CALLS: dict[str, Call] = {
    "Model": Call(
        beta_jax.Model,
        {"name": "a", "type": "t", "slo_s": 1.0, "rate_rps": 1.0, "cv": 1.0},
        numbers=("slo_s", "rate_rps", "cv"),
        texts=("name", "type"),
        maybe_nan=("rate_rps",),
    ),
    "Pool": Call(
        beta_jax.Pool,
        {"name": "a", "num_devices": 2, "memory_bytes": 2e9, "devices_per_node": 2}
        | {"price_per_hour": 1.0, "load_bandwidth_bytes_per_s": 1e9},
        numbers=(
            *("num_devices", "memory_bytes", "devices_per_node", "price_per_hour"),
            "load_bandwidth_bytes_per_s",
        ),
        texts=("name",),
        maybe_nan=("price_per_hour",),
        maybe_none=("load_bandwidth_bytes_per_s",),
    ),
    "Cluster": Call(
        beta_jax.Cluster,
        {"num_devices": 2, "memory_bytes": 2e9, "devices_per_node": 2}
        | {"load_bandwidth_bytes_per_s": 1e9},
        numbers=("num_devices", "memory_bytes", "devices_per_node", "load_bandwidth_bytes_per_s"),
        maybe_none=("load_bandwidth_bytes_per_s",),
    ),
    "Rules": Call(
        beta_jax.Rules,
        {"dispatch": "earliest_free", "stage_overhead": 0.0, "request_overhead_s": 0.0}
        | {"batching": "strict", "max_batch": 2},
        numbers=("stage_overhead", "request_overhead_s", "max_batch"),
        texts=("dispatch", "batching"),
    ),
    "make_models": Call(
        _bound(beta_jax.make_models, ["t", "t"], _profile()),
        {"slo_scale": 5.0, "total_rate_rps": 2.0, "split": [1.0, 2.0], "cv": 1.0},
        numbers=("slo_scale", "total_rate_rps", "cv"),
        arrays=("split",),
    ),
    "split_rate": Call(
        beta_jax.split_rate,
        {"total_rate_rps": 1.0, "num_models": 2, "how": [1.0, 1.0]},
        numbers=("total_rate_rps", "num_models"),
        arrays=("how",),
    ),
    "Architecture": Call(
        beta_jax.Architecture,
        ARCHITECTURE,
        numbers=[name for name in ARCHITECTURE if name != "block"],
        texts=("block",),
        maybe_none=("kv_heads", "feed_forward"),
    ),
    "MeasureSettings": Call(
        beta_jax.MeasureSettings,
        {"dtype": "float32", "attention": "xla", "memory_bytes": 1e9, "warmup": 0, "repeats": 1},
        numbers=("memory_bytes", "warmup", "repeats"),
        texts=("dtype", "attention"),
        maybe_none=("memory_bytes", "dtype"),
    ),
    "Workload": Call(
        beta_jax.Workload,
        {"arrival": [1, 2], "model": [0, 1], "work": [2**16, 2**15]},
        arrays=("arrival", "model", "work"),
        maybe_none=("work",),
    ),
    "from_seconds": Call(
        beta_jax.Workload.from_seconds,
        {"arrival_s": [0.5, 1.5], "model": [0, 1], "work": [1.0, 0.5]},
        arrays=("arrival_s", "model", "work"),
        maybe_none=("work",),
    ),
    "merge": Call(_merged, {"first": [0.5, 1.5], "second": [1.0]}, arrays=("first", "second")),
    "synthesize": Call(
        _bound(beta_jax.synthesize, MODELS),
        SYNTHETIC | {"seed": 0},
        numbers=("duration_s", "start_s", "seed"),
        texts=("process", "rng"),
    ),
    "synthesize_many": Call(
        _bound(beta_jax.synthesize_many, MODELS),
        SYNTHETIC | {"seeds": [0, 1]},
        numbers=("duration_s", "start_s"),
        arrays=("seeds",),
    ),
    "write_requests": Call(_written, {"model_names": ["a", "b"]}, arrays=("model_names",)),
    "replay": Call(
        lambda **given: beta_jax.replay(_trace(), **given),
        REPLAYED,
        numbers=("num_models", "window_s", "rate_scale", "cv_scale", "seed"),
        texts=("start", "end", "mapping", "process", "rng"),
        maybe_none=("window_s", "start", "end"),
    ),
    "replay_vanilla": Call(
        lambda **given: beta_jax.replay(_trace(), 2, process="vanilla", **given),
        {"time_scale": 1.0, "replicas": 1},
        numbers=("time_scale", "replicas"),
    ),
    "Group": Call(
        _grouped,
        {"op": 1, "pp": 2, "models": (0, 1), "devices": (0, 1)},
        numbers=("op", "pp"),
        arrays=("models", "devices"),
    ),
    "Schedule": Call(_scheduled, {"start_s": (0.0, 1.0)}, arrays=("start_s",)),
    "simulate": Call(
        _bound(beta_jax.simulate, PROBLEM, PLACEMENT, WORKLOAD),
        {"warmup_s": 0.0, "outputs": "tally"},
        numbers=("warmup_s",),
        texts=("outputs",),
    ),
    "Failure": Call(
        _failed,
        {"start_s": 0.5, "end_s": 1.0, "device": 0},
        numbers=("start_s", "end_s", "device"),
    ),
    "power_of_two": Call(_dispatched, {"seed": 1}, numbers=("seed",)),
    "latency_summary": Call(
        lambda of: beta_jax.latency_summary(_outcome(), of),
        {"of": np.ones(5, np.bool_)},
        arrays=("of",),
    ),
    "utilisation": Call(
        lambda num_bins: beta_jax.utilisation(PROBLEM, PLACEMENT, _outcome(), num_bins),
        {"num_bins": 3},
        numbers=("num_bins",),
    ),
    "write_timeline": Call(_timed, {"start_s": 0.0, "end_s": 2.0}, numbers=("start_s", "end_s")),
    "work": Call(_worked, {"prompt_tokens": [8, 12]}, arrays=("prompt_tokens",)),
    "place": Call(
        _bound(beta_jax.place, problem=PROBLEM, training=WORKLOAD),
        {"policy": "mp-search"},
        texts=("policy",),
    ),
    "local_search": Call(
        _bound(beta_jax.place, "local-search", PROBLEM, WORKLOAD),
        LOCAL,
        numbers=[name for name in LOCAL if name != "start_from"],
        maybe_none=("max_bytes_moved",),
    ),
    "plan": Call(
        _bound(beta_jax.plan, PROBLEM, Generated(30.0), policy="sr-greedy"),
        PLANNED | {"question": "devices", "of": "all", "steps": [1]},
        numbers=[*PLANNED],
        texts=("question", "of"),
        arrays=("steps",),
        maybe_none=("mtbf_h", "mttr_h", "steps"),
    ),
    "Log": Call(
        _logged, {"block_s": 1.0, "rate": 1.0, "seed": 0}, numbers=("block_s", "rate", "seed")
    ),
    "Generated": Call(
        _generated,
        {"duration_s": 3.0, "process": "gamma", "rate": 1.0, "cv": 1.0, "seed": 0},
        numbers=("duration_s", "rate", "cv", "seed"),
        texts=("process",),
    ),
    "Fitted": Call(_fitted, {"rate": 1.0, "cv": 1.0, "seed": 0}, numbers=("rate", "cv", "seed")),
}
QUEUEING: dict[str, Mapping[str, Any]] = {
    "mm1_wait_s": QUEUE,
    "md1_wait_s": QUEUE,
    "mg1_wait_s": QUEUE | {"service_cv": 1.0},
    "kingman_bound_s": QUEUE | {"arrival_cv": 1.0, "service_cv": 0.5},
    "erlang_b": {"num_servers": 2, "load": 1.0},
    "erlang_c": {"num_servers": 2, "load": 1.0},
    "mmc_wait_s": QUEUE | {"num_servers": 2},
    "mdc_wait_s": QUEUE | {"num_servers": 2},
    "md1_pairs_latency_s": QUEUE,
    "md1_wait_cdf": QUEUE | {"wait_s": 0.1},
    "md1_wait_quantile_s": QUEUE | {"probability": 0.9},
    "deadline_attainment": STAGES | {"slo_s": 1.0},
    "pipeline_latency_s": STAGES,
    "simple_latency_s": QUEUE | {"share": 0.5},
    "break_even_alpha": {"load": 0.5},
    "break_even_beta": {"load": 0.5},
    "burst_latency_s": {"num_requests": 3, "latency_s": 0.3, "bottleneck_s": 0.2},
}
for name, good in QUEUEING.items():
    CALLS[name] = Call(getattr(queueing, name), good, arrays=[*good], maybe_none=("bottleneck_s",))


@st.composite
def calls(draw: st.DrawFn, names: Sequence[str]) -> Odd:
    """One or two arguments are odd."""
    name = draw(st.sampled_from(names))
    call = CALLS[name]
    known = [*call.numbers, *call.texts, *call.arrays]
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
    return Odd(name, {argument: draw(ODD) for argument in chosen})


def _is_nan(value: Any) -> bool:
    if isinstance(value, str):
        return False
    try:
        return bool(np.isnan(np.asarray(value, np.float64)).any())
    except (TypeError, ValueError, OverflowError):
        return False


def feed(given: Odd) -> None:
    call = CALLS[given.name]
    try:
        call.call(**{**call.good, **given.odd})
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        require_short(message)
        names = {part for name in given.odd for part in (name, *_words(name))}
        if not any(name in message.lower() for name in names):
            raise Defect(f"{given.name} names none of its arguments: {message}") from error
        return
    for name, value in given.odd.items():
        if value is None and name in call.maybe_none:
            continue
        if name not in (*call.maybe_nan, *call.texts) and _is_nan(value):
            raise Defect(f"{given.name} took NaN for {name}")
        if name in call.numbers and any(value is other for other in NOT_NUMBERS):
            raise Defect(f"{given.name} took {value!r} for {name}")


def _words(name: str) -> list[str]:
    """What an error may call an argument: its words, whole or the last of them but the unit."""
    plain = name.removesuffix("_s").removesuffix("_rps").removesuffix("_bytes").removesuffix("s")
    return [plain.replace("_", " "), *WORDS.get(name, ())]


WORDS: dict[str, tuple[str, ...]] = {
    "rate_rps": ("utilisation", "load"),
    "service_s": ("utilisation", "load"),
    "load": ("utilisation",),
    "num_servers": ("utilisation",),
    "num_requests": ("burst", "number of requests"),
    "bottleneck_s": ("service time", "utilisation"),
    "split": ("share",),
    "how": ("share", "split"),
    "arrival_s": ("arrival",),
    "first": ("arrival", "stream"),
    "second": ("arrival", "stream"),
    "of": ("requests",),
    "op": ("devices",),
    "warmup_s": ("warm-up",),
    "rate_scale": ("rate",),
    "cv_scale": ("cv",),
    "start": ("time",),
    "end": ("time",),
    "num_models": ("windows", "shares"),
    "window_s": ("duration",),
    "num_devices": ("devices",),
    "model_names": ("named",),
    "pp": ("devices",),
    "arrival": ("work must be",),
    "model": ("work must be",),
}


TARGETS: dict[str, Target] = {
    "calls": Target(calls([name for name in CALLS if name not in QUEUEING]), feed),
    "queueing": Target(calls([*QUEUEING]), feed),
}
