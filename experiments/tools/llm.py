"""How engines that serve language models stand a rate: attainment, latencies, how many it takes."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

from tqdm import tqdm

from beta_jax.analysis.statistics import mean_interval
from experiments.engine import files, fingerprint
from experiments.engine.files import input_path
from experiments.engine.store import FILE, Record, Store, digest
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task, open_store
from experiments.report import tables
from experiments.report.tables import Row
from experiments.tools import llm_figures

if TYPE_CHECKING:
    from beta_jax.llm.capacity import HighestRate, Limits
    from beta_jax.llm.engine import Engine
    from beta_jax.llm.traffic import TokenTraffic

FILES = ("table.csv", "curves.csv", "answers.csv", FILE, *llm_figures.FILES)
CODE = ("beta_jax.llm.capacity",)
"""What it imports, and no other code, decides what is stored."""

MOST_SEEDS, MOST_ROUNDS = 10_000, 10
FEW_SEEDS, TRIAL_CONFIDENCE = 4, 0.999
"""Of a number of engines that is tried at first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The traffic, the engines, and what is asked."""

    engine: Annotated[tuple[str, ...], "engines: JSON files, or folders of runs; a curve each"]
    max_num_seqs: Annotated[tuple[int, ...], "requests that run at once; empty: the engine's"] = ()
    max_num_batched_tokens: Annotated[
        tuple[int, ...], "token budgets of a step; empty: the engine's"
    ] = ()
    num_blocks: Annotated[
        tuple[int, ...], "blocks of keys and values; empty: as the engine reported"
    ] = ()
    model: Annotated[
        str | None, "estimate the blocks of this architecture, in place of num_blocks"
    ] = None
    device_gib: Annotated[float | None, "with memory of this size, as its driver reports it"] = None
    tensor_parallel: Annotated[int, "on each of so many devices"] = 1
    prefix_caching: Annotated[
        bool, "reuse blocks of requests taken back; simulated one by one, and slowly"
    ] = False
    cv: Annotated[
        float, "coefficient of variation of gaps of generated traffic; of a trace: a factor of it"
    ] = 1.0
    process: Annotated[str, "arrival process: gamma, poisson, deterministic, pareto, mmpp"] = (
        "gamma"
    )
    duration_s: Annotated[float, "length of generated traffic, s"] = 3600.0
    trace: Annotated[
        str | None,
        "in place of generated traffic: Azure LLM trace, or a table of rates and CVs per client",
    ] = None
    start: Annotated[str | None, "where a slice of the trace starts, day.hour.minute"] = None
    end: Annotated[str | None, "where it ends"] = None
    replay: Annotated[
        bool, "the requests of the trace themselves, not seeds of processes fitted to it"
    ] = False
    requests: Annotated[
        str | None, "in place of both: CSV with arrival_ns,input_tokens,output_tokens"
    ] = None
    lengths: Annotated[
        str | None,
        "law of prompt and answer tokens: azure_conversation, or an Azure LLM trace that has them; "
        "none: of the trace, or azure_conversation",
    ] = None
    rates: Annotated[tuple[float, ...], "requests/s; a trace is played so much faster or slower"]
    seeds: Annotated[int, "samples of the traffic at every rate"] = 16
    ttft_limit_s: Annotated[float, "limit of the time to the first token, s"]
    tpot_limit_s: Annotated[float, "limit of the time per token after it, s"]
    target: Annotated[float, "share of requests that should be within both limits"] = 0.99
    warmup_s: Annotated[float, "requests that arrive before do not count, s"] = 60.0
    rounds: Annotated[int, "of three more rates each, where attainment crosses the target"] = 2
    service_rps: Annotated[
        float | None, "also: how many engines behind a least-loaded router serve this rate"
    ] = None

    def __post_init__(self) -> None:
        if self.trace and self.requests:
            raise ValueError("which traffic? give one of trace and requests, got both")
        for name in ("engine", "rates"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty")
        if not all(0 < rate < float("inf") for rate in self.rates):
            raise ValueError(f"rates are requests/s > 0, got {','.join(map(str, self.rates))}")
        if self.service_rps is not None and not 0 < self.service_rps < float("inf"):
            raise ValueError(f"service_rps must be > 0 requests/s, got {self.service_rps}")
        if not 0 < self.target < 1:
            raise ValueError(f"target must be between 0 and 1, got {self.target}")
        for name in ("ttft_limit_s", "tpot_limit_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0 seconds, got {getattr(self, name):g}")
        for name, least, most in (("seeds", 1, MOST_SEEDS), ("rounds", 0, MOST_ROUNDS)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be {least} to {most}, got {getattr(self, name)}")
        if (self.model is None) != (self.device_gib is None):
            raise ValueError("blocks are estimated from model and device_gib: give both, or none")
        if self.model is not None and self.num_blocks:
            raise ValueError("num_blocks and model both say how many blocks there are: give one")


class _Variant(NamedTuple):
    label: str
    engine: Engine
    key: Any  # of what a result depends on


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Simulate the sweep and answer the questions; write the tables."""
    with stopwatch.imports():
        from beta_jax.llm import capacity
    with stopwatch.part("read"):
        variants = _variants(config)
        traffic, traffic_key = _traffic(config)
    limits = capacity.Limits(config.ttft_limit_s, config.tpot_limit_s, config.warmup_s)
    seeds = range(config.seeds if traffic.is_random else 1)
    if not traffic.is_random and config.seeds > 1:
        print("requests are what they are: one sample at every rate, and no intervals")
    bench = _Bench(traffic, traffic_key, limits, seeds, open_store(directory), stopwatch)
    bench.measure([(v, rate, 1) for v in variants for rate in config.rates])
    answers: list[Row] = []
    for variant in variants:

        def at_rates(some: Sequence[float], variant: _Variant = variant) -> list[list[float]]:
            return bench.measure([(variant, rate, 1) for rate in some])

        highest = capacity.highest_rate(at_rates, config.rates, config.target, rounds=config.rounds)
        answers.append(_answer(config, variant, highest))
        if config.service_rps is None:
            continue
        # Engines that share a queue stand more than as many alone: begin with whole ones.
        good = 0 < highest.rate < float("inf")
        guess = max(1, int(config.service_rps / highest.rate)) if good else 1
        trial = _Trial(bench, variant, config.service_rps, config.target)
        fewest = capacity.fewest_engines(trial, config.target, guess=guess)
        answers.append(_engines_answer(config, variant, fewest, trial))
    _write(config, directory, bench.rows(), answers)


class _Trial:
    """What a number of engines comes to at the service's rate, by seed.

    A few seeds do where the 99.9 % interval of their mean does not hold the target; all are looked
    at elsewhere. Prints what it found: trials take long.
    """

    def __init__(self, bench: _Bench, variant: _Variant, rate_rps: float, target: float) -> None:
        self._bench, self._variant, self._rate_rps = bench, variant, rate_rps
        self._target = target
        self.found: dict[int, list[float]] = {}

    def __call__(self, number: int) -> list[float]:
        for seeds in (FEW_SEEDS, None):
            own = self._measured(number, seeds)
            trial = mean_interval(own, TRIAL_CONFIDENCE)
            if trial.low > self._target or trial.high < self._target:
                break
        return own

    def all_seeds(self, number: int) -> list[float]:
        return self._measured(number, None)

    def _measured(self, number: int, seeds: int | None) -> list[float]:
        [own] = self._bench.measure([(self._variant, self._rate_rps, number)], seeds)
        if len(own) > len(self.found.get(number, ())):
            print(
                f"{self._variant.label}: {number} engines serve {100 * sum(own) / len(own):.2f} % "
                f"({len(own)} {'seed' if len(own) == 1 else 'seeds'})",
                flush=True,
            )
            self.found[number] = own
        return own


class _Bench:
    """Measures points, each once: what is stored is not simulated again."""

    def __init__(
        self,
        traffic: TokenTraffic,
        traffic_key: Any,
        limits: Limits,
        seeds: Sequence[int],
        store: Store,
        stopwatch: Stopwatch,
    ) -> None:
        self._traffic, self._limits, self._seeds = traffic, limits, seeds
        self._store, self._stopwatch = store, stopwatch
        self._common = {
            "code": fingerprint.code(CODE),
            "machine": fingerprint.machine(),
            "traffic": traffic_key,
            "limits": dataclasses.asdict(limits),
        }
        self._points: dict[tuple[str, float, int], list[str]] = {}

    def measure(
        self, points: Iterable[tuple[_Variant, float, int]], num_seeds: int | None = None
    ) -> list[list[float]]:
        """The attainment of every point by seed, of all or the first few.

        Point: an engine, requests/s, and the number of engines.
        """
        from beta_jax.llm.capacity import Point, serve
        from beta_jax.llm.kernel import LANES

        keys, missing = [], {}
        seeds = self._seeds[:num_seeds]
        for variant, rate_rps, number in points:
            scale = rate_rps / self._traffic.rate_rps
            own = [
                digest({**self._common, "engine": variant.key, "point": [scale, number, seed]})
                for seed in seeds
            ]
            keys.append(own)
            at = variant.label, rate_rps, number
            self._points[at] = max(own, self._points.get(at, []), key=len)
            for key, seed in zip(own, seeds, strict=True):
                if key not in self._store.records:
                    missing[key] = Point(variant.engine, scale, number), seed
        # Lanes of like length, the long ones first.
        todo = sorted(missing.items(), key=lambda item: -item[1][0].rate_scale)
        lanes = LANES * len(os.sched_getaffinity(0))  # a block for each core
        with (
            self._stopwatch.part("simulate"),
            tqdm(total=len(todo), unit="sample", leave=False, disable=None) as bar,
        ):
            while todo:
                total = itertools.accumulate(case.num_engines for _, (case, _) in todo)
                number = max(1, sum(lane <= lanes for lane in total))
                some, todo = dict(todo[:number]), todo[number:]
                found = serve(self._traffic, self._limits, [*some.values()])
                records = ({"metrics": metrics} for metrics in found)
                self._store.add(cast(dict[str, Record], dict(zip(some, records, strict=True))))
                bar.update(number)
        return [[self._store.records[key]["metrics"]["attainment"] for key in own] for own in keys]

    def rows(self) -> list[Row]:
        """A row for each sample of each point that was measured, engines in their own order."""
        order = {label: i for i, label in enumerate(dict.fromkeys(p[0] for p in self._points))}
        return [
            {"engine": label, "rate_rps": rate_rps, "num_engines": number, "seed": seed}
            | self._store.records[key]["metrics"]
            for (label, rate_rps, number), own in sorted(
                self._points.items(), key=lambda item: (order[item[0][0]], *item[0][1:])
            )
            for seed, key in zip(self._seeds, own, strict=False)
        ]


def _answer(config: Config, variant: _Variant, found: HighestRate) -> Row:
    rate, low, high = found
    share = f"{100 * config.target:g} %"
    if rate != rate:
        words = f"{variant.label}: not {share} even at {min(config.rates):.3g} requests/s"
    elif rate == float("inf"):
        words = f"{variant.label}: {share} up to {max(config.rates):.3g} requests/s and more"
    else:
        words = f"{variant.label}: {share} within both limits up to {rate:.3g} requests/s"
        if high == high:
            least = " or less" if low <= min(config.rates) else ""
            most = " or more" if high >= max(config.rates) else ""
            words += f" ({low:.3g}{least} to {high:.3g}{most})"
    return {"engine": variant.label, "question": "rate", "answer": rate} | {
        "low": low,
        "high": high,
        "in_words": words,
    }


def _engines_answer(config: Config, variant: _Variant, fewest: int | None, trial: _Trial) -> Row:
    share, rate = f"{100 * config.target:g} %", f"{config.service_rps:g} requests/s"
    row: Row = {"engine": variant.label, "question": "engines", "answer": fewest or "none"}
    if fewest is None:
        words = f"{variant.label}: no number of engines tried serves {rate} with {share}"
        return row | {"low": float("nan"), "high": float("nan"), "in_words": words}
    from beta_jax.llm.capacity import share_interval

    own = share_interval(trial.all_seeds(fewest))
    words = f"{variant.label}: {rate} with {share} needs {fewest} engines"
    words += f" ({100 * own.mean:.2f} %"
    words += f", {100 * own.low:.2f} to {100 * own.high:.2f})" if own.num > 1 else ")"
    if fewest > 1:
        words += f", {fewest - 1} serve {100 * mean_interval(trial.found[fewest - 1]).mean:.2f} %"
    return row | {"low": own.low, "high": own.high, "in_words": words}


SEEDS_ONLY = """
Intervals are of the mean over seeds. They say nothing of how well the engine is modelled, and
nothing of other traffic: a linear step time and arrivals that are more even both let an engine
stand more. docs/llm.md has numbers; llm_check compares with a run of your engine."""

CURVES = (
    "attainment",
    "ttft_mean_s",
    "ttft_p50_s",
    "ttft_p99_s",
    "tpot_mean_s",
    "tpot_p99_s",
    "latency_mean_s",
    "latency_p99_s",
)
"""What `curves.csv` has the mean over seeds of, and its interval."""


def _write(config: Config, directory: Path, rows: Sequence[Row], answers: Sequence[Row]) -> None:
    files.write(directory / "table.csv", tables.to_csv(rows))
    from beta_jax.llm.capacity import share_interval

    known = ("engine", "rate_rps", "num_engines")
    curves = []
    for point, group in itertools.groupby(rows, key=lambda row: [row[name] for name in known]):
        own = [*group]
        line: Row = dict(zip(known, point, strict=True)) | {"seeds": len(own)}
        for name in CURVES:
            interval = share_interval if name == "attainment" else mean_interval
            mean, low, high, _ = interval([row[name] for row in own])
            line |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        line |= {"preemptions": mean_interval([row["preemptions"] for row in own]).mean}
        limits = {name: getattr(config, name) for name in ("ttft_limit_s", "tpot_limit_s")}
        curves.append(line | limits | {"target": config.target})
    files.write(directory / "curves.csv", tables.to_csv(curves))
    files.write(directory / "answers.csv", tables.to_csv(answers))
    shown = [
        {name: line[name] for name in ("engine", "rate_rps", "num_engines")}
        | {"attainment_%": 100 * line["attainment"]}
        | {"+-": 100 * (line["attainment"] - line["attainment_low"])}
        | {name: line[name] for name in CURVES[1:] if name != "latency_p99_s"}
        | {"preemptions": line["preemptions"]}
        for line in curves
    ]
    if len({line["num_engines"] for line in shown}) == 1:
        shown = [{k: v for k, v in line.items() if k != "num_engines"} for line in shown]
    print(tables.to_text(shown), *(answer["in_words"] for answer in answers), sep="\n")
    if any(answer["low"] == answer["low"] for answer in answers):
        print(SEEDS_ONLY)


def _variants(config: Config) -> list[_Variant]:
    from beta_jax.llm.linear import LinearStepTime
    from beta_jax.llm.run_files import load_engine, load_run
    from beta_jax.llm.tables import StepTables

    blocks: tuple[int, ...] = config.num_blocks or _estimated(config)
    found: list[_Variant] = []
    for path in config.engine:
        source = input_path(path)
        engine = load_run(source)[1] if source.is_dir() else load_engine(source)
        name = source.stem if source.suffix == ".json" else source.name
        for seqs, budget, number in itertools.product(
            config.max_num_seqs or (engine.max_num_seqs,),
            config.max_num_batched_tokens or (engine.max_num_batched_tokens,),
            blocks or (engine.num_blocks,),
        ):
            own = dataclasses.replace(
                engine,
                max_num_seqs=seqs,
                max_num_batched_tokens=budget,
                num_blocks=number,
                prefix_caching=config.prefix_caching,
            )
            varied = [
                *([f"{seqs} sequences"] if len(config.max_num_seqs) > 1 else []),
                *([f"{budget} tokens"] if len(config.max_num_batched_tokens) > 1 else []),
                *([f"{number} blocks"] if len(blocks) > 1 else []),
            ]
            several = len(config.engine) > 1
            label = ", ".join([name, *varied] if several or not varied else varied)
            if label in {v.label for v in found}:
                raise ValueError(f"two engines are called {label!r}: give files of other names")
            key = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
            if isinstance(own.step_time, LinearStepTime):
                key["step_time"] = dataclasses.asdict(own.step_time)
            elif isinstance(own.step_time, StepTables):
                assert own.step_time.folder is not None
                tables_of = sorted(Path(own.step_time.folder).glob("*.*"))
                key["step_time"] = {p.name: digest(p.read_text()) for p in tables_of}
            found.append(_Variant(label, own, key))
    return found


def _estimated(config: Config) -> tuple[int, ...]:
    if config.model is None or config.device_gib is None:
        return ()
    from beta_jax.llm.memory import estimate_num_blocks
    from beta_jax.profiles.architectures import find_architecture

    number = estimate_num_blocks(
        find_architecture(config.model),
        config.device_gib * 2**30,
        tensor_parallel=config.tensor_parallel,
    )
    print(
        f"estimated: {number} blocks of keys and values beside {config.model} on "
        f"{config.tensor_parallel} x {config.device_gib:g} GiB"
    )
    return (number,)


def _traffic(config: Config) -> tuple[TokenTraffic, Any]:
    """The traffic, and what it depends on."""
    from beta_jax import traces
    from beta_jax.llm.lengths import LENGTHS, TokenLengths
    from beta_jax.llm.requests import LLMError, load_token_requests
    from beta_jax.llm.traffic import GeneratedTraffic, ReplayedTraffic, lengths_of, traffic_of

    if config.requests is not None:
        path = input_path(config.requests)
        requests = load_token_requests(path)
        if requests.prefixes is not None:
            print(f"{path}: shared prefixes are not looked at here")
        try:
            return ReplayedTraffic(requests), digest(path.read_text())
        except LLMError as error:
            raise LLMError(f"{path}: {error}") from None
    law: TokenLengths | None = None
    if config.lengths in LENGTHS:
        law = LENGTHS[cast(str, config.lengths)]
    elif config.lengths is not None:
        if not input_path(config.lengths).exists():
            raise ValueError(
                f"lengths: no law and no trace {config.lengths!r}; known: {', '.join(LENGTHS)}"
            )
        law = lengths_of(traces.load_trace(input_path(config.lengths)))
    law_key = None if law is None else dataclasses.asdict(law)
    if config.trace is None:
        made = GeneratedTraffic(
            1.0,
            config.cv,
            config.process,
            config.duration_s,
            law or LENGTHS["azure_conversation"],
        )
        return made, dataclasses.asdict(made)
    source = input_path(config.trace)
    slice_: Any = {"start": config.start, "end": config.end, "replay": config.replay}
    found = traffic_of(traces.open_trace(source), lengths=law, cv_scale=config.cv, **slice_)
    return found, [traces.fingerprint(source), slice_, config.cv, law_key]


def draw(directory: Path) -> list[Path]:
    return llm_figures.draw(directory)


TASK = Task(files=FILES, run=execute, draw=draw)
