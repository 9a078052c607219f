"""What do I need for 99 %? From the user's own log or trace, profiles and prices."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tqdm import tqdm

from beta_jax.placement.files import save_placement
from beta_jax.placement.problem import Problem, make_models, profile_of
from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.types import UNREGISTERED, Cluster, Model, Rules, Workload
from beta_jax.workloads.requests import read_requests
from experiments.engine import files
from experiments.engine.files import input_path
from experiments.engine.model_files import ModelSpec, read_models, shares
from experiments.engine.pool_files import memory_bytes, read_cluster
from experiments.engine.scenarios import POOLS_HELP, ServedModels
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import tables
from experiments.tools import asked, plan_figures, request_files

if TYPE_CHECKING:
    from beta_jax.planning import Answer, TrafficSource

FILES = ("plan.csv", "answers.csv", "placement.json", *plan_figures.PLAN_FILES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ServedModels):
    """The traffic, what may be bought, and what is asked."""

    requests: Annotated[str | None, "log to plan for: CSV with the columns arrival_s,model"] = None
    trace: Annotated[str | None, "trace to plan for in place of a log: file or folder"] = None
    start: Annotated[str | None, "where a slice of the trace starts, day.hour.minute"] = None
    end: Annotated[str | None, "where it ends"] = None
    block_s: Annotated[
        float, "test workloads are drawn from a log or trace in blocks of this length, s"
    ] = 60.0
    fit: Annotated[
        bool, "sample test workloads from gamma processes fitted to it instead, window by window"
    ] = False
    fit_window_s: Annotated[float | None, "length of these windows, s; none: as traces have"] = None
    rate_scale: Annotated[float, "factor of the rates of fitted processes"] = 1.0
    rate_rps: Annotated[
        float | None, "total rate of generated traffic, in place of a log and a trace, requests/s"
    ] = None
    split: Annotated[str, "how that is shared: uniform, power_law, triangle_decay"] = "uniform"
    cv: Annotated[float, "coefficient of variation of the gaps in generated traffic"] = 1.0
    process: Annotated[str, "arrival process: gamma, poisson, deterministic, pareto, mmpp"] = (
        "gamma"
    )
    duration_s: Annotated[float, "length of each generated workload, s"] = 600.0
    slo_scale: Annotated[float, "SLO as a multiple of the type's single-device latency"] = 5.0
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    num_devices: Annotated[int, "devices that may be had at most"]
    memory_gib: Annotated[float, asked.MEMORY_HELP] = asked.V100_GIB
    devices_per_node: Annotated[int, "devices in a node"] = 8
    pools: Annotated[str | None, f"{POOLS_HELP}; as many as may be had at most, with prices"] = None
    steps: Annotated[
        tuple[int, ...], "devices of each pool come in multiples of this; empty: one by one"
    ] = ()
    questions: Annotated[
        tuple[str, ...],
        "devices (the fewest; of several pools the cheapest mix), and for the cluster as it is "
        "given rate (the highest), slo (the tightest), cv (the largest)",
    ] = ("devices",)
    target: Annotated[float, "SLO attainment to reach, the mean over test workloads"] = 0.99
    of: Annotated[Literal["all", "worst_model"], "of all requests, or of the worst model's"] = "all"
    seeds: Annotated[int, "test workloads"] = 40
    policy: Annotated[str, "what places; mp-search-sep for models of several types"] = "mp-search"
    mtbf_h: Annotated[float | None, "mean hours between failures of a device; none: no matter"] = (
        None
    )
    mttr_h: Annotated[float | None, "mean hours until it is back"] = None
    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 10.0
    rules: Rules = dataclasses.field(default_factory=Rules)

    def __post_init__(self) -> None:
        given = [name for name in ("requests", "trace", "rate_rps") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "which traffic? give one of requests (a log), trace, and rate_rps (generated), "
                f"got {' and '.join(given) or 'none'}"
            )
        if not self.questions:
            raise ValueError("questions is empty: what is asked?")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Answer the questions; write the trials, the answers and the placement to deploy."""
    with stopwatch.imports():
        from beta_jax import planning
        from beta_jax.search import find_policy
    find_policy(config.policy)
    with stopwatch.part("read"):
        problem, source = _read(config)
    asked.warn(problem, None if config.pools else config.memory_gib, slos=False)
    answers = []
    for question in config.questions:
        with stopwatch.part(question), tqdm(unit="round", leave=False, disable=None) as bar:

            def say(what: str, question: str = question, bar: tqdm = bar) -> None:
                bar.set_description(f"{question}: {what}")
                bar.update()

            answers.append(
                planning.plan(
                    problem,
                    source,
                    question,  # type: ignore[arg-type]  # which it checks
                    target=config.target,
                    of=config.of,
                    seeds=config.seeds,
                    policy=config.policy,
                    warmup_s=config.warmup_s,
                    steps=config.steps or None,
                    mtbf_h=config.mtbf_h,
                    mttr_h=config.mttr_h,
                    say=say,
                )
            )
    _report(config, answers, directory)


def _report(config: Config, answers: Sequence[Answer], directory: Path) -> None:
    rows = [row for answer in answers for row in answer.rows()]
    for row in rows:
        row["target"] = config.target
    files.write(directory / "plan.csv", tables.to_csv(rows))
    columns = ("attainment", "low", "high", "price_per_hour")
    found: list[dict[str, Any]] = []
    for answer in answers:
        best = next((row for row in answer.rows() if row["answer"]), None)
        found.append(
            {"question": answer.question, "decided": not answer.undecided}
            | {"answer": answer.value(answer.best) if answer.best else "none"}
            | {name: best[name] if best else float("nan") for name in columns}
            | {"binds": answer.binds, "headroom": answer.headroom}
            | {"one_node_down": answer.one_node_down, "with_failures": answer.with_failures}
            | {"in_words": str(answer)}
        )
    files.write(directory / "answers.csv", tables.to_csv(found))
    hidden = {"question", "target", "seeds", "rate", "cv", "slo", "decided", "answer", "frontier"}
    notes = []
    for answer in answers:
        shown = []
        for row in answer.rows():
            mark = "answer" if row["answer"] else "frontier" if row["frontier"] else ""
            varied = {} if answer.question == "devices" else {answer.question: row[answer.question]}
            kept = {k: v for k, v in row.items() if k not in hidden and v == v}
            shown.append(
                varied | kept | {"": mark if len(answer.frontier) > 1 or mark == "answer" else ""}
            )
        notes.append(f"{answer.question}\n{tables.to_text(shown)}")
        for warning in dict.fromkeys(answer.best.warnings if answer.best else ()):
            print(f"warning: {warning}", file=sys.stderr)
        for trial in answer.violations:
            print(
                f"warning: {answer.value(trial)} missed the target that harder settings met: "
                "a search guarantees no order",
                file=sys.stderr,
            )
    (directory / "placement.json").unlink(missing_ok=True)
    if (best_trial := answers[0].best) is not None:
        problem, names = best_trial.problem, best_trial.problem.cluster.names
        save_placement(directory / "placement.json", best_trial.placement, problem.models, names)
        notes.append(f"{directory / 'placement.json'} is what to deploy: {best_trial.placement}")
    for answer in answers:
        notes.append(str(answer))
        if (seeds := answer.seeds_to_decide) is not None:
            notes.append(f"--config.seeds={seeds} would decide it, if means stay what they are")
    print("\n\n".join(notes))


def _read(config: Config) -> tuple[Problem, TrafficSource]:
    """Raises what reading files raises, and ValueError for what does not go together."""
    from beta_jax.planning import Generated

    if config.pools is not None:
        cluster, profiles = read_cluster(input_path(config.pools))
        profile = profile_of(cluster, profiles)
    else:
        cluster = Cluster(
            config.num_devices, memory_bytes(config.memory_gib), config.devices_per_node
        )
        profile = load_profile(input_path(config.profile))
    specs = () if config.models is None else read_models(input_path(config.models))
    log: Workload | None = None
    if config.rate_rps is not None:
        names, types = _names(specs, config.model_types, None)
        split = shares(specs) or config.split
        models = _models(config, specs, names, types, profile, config.rate_rps, split)
        source: TrafficSource = Generated(config.duration_s, config.process, config.block_s)
    else:
        if config.requests is not None:
            path = input_path(config.requests)
            found = (
                [spec.name or "" for spec in specs] if specs else request_files.model_names(path)
            )
            names, types = _names(specs, config.model_types, found)
            log = read_requests(path, names)
            source, rates = _of_log(config, log, names)
        else:
            names, types = _names(specs, config.model_types, None)
            source, rates = _of_trace(config, len(names))
        total = float(np.sum(rates))
        models = _models(config, specs, names, types, profile, total, rates)
    return Problem(models, cluster, profile, config.rules), source


def _names(
    specs: Sequence[ModelSpec], model_types: Sequence[str], found: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Names and types of the models: of the file of them, or as found, one type for all or each."""
    types = [spec.type for spec in specs] or list(model_types)
    if found is not None and not specs:
        if len(types) not in (1, len(found)):
            raise ValueError(
                f"the log names {len(found)} models ({', '.join(found[:9])}), model_types "
                f"{len(types)}: give one type for all, or one for each in this order"
            )
        types = types * len(found) if len(types) == 1 else types
        return list(found), types
    if not types:
        raise ValueError("which models? give model_types, or a file of models")
    names = [spec.name for spec in specs if spec.name is not None]
    if found is not None and len(names) < len(specs):
        raise ValueError("the file of models needs their names, by which the log asks for them")
    return names or [f"{kind}-{i}" for i, kind in enumerate(types)], types


def _models(
    config: Config,
    specs: Sequence[ModelSpec],
    names: Sequence[str],
    types: Sequence[str],
    profile: Profile,
    rate_rps: float,
    split: str | Sequence[float],
) -> tuple[Model, ...]:
    if not specs:
        asked.require_types(types, profile, config.pools or config.profile)
        if config.requests is not None:
            asked.tell_type(config.requests, names, config.model_types)
    models = make_models(
        types,
        profile,
        slo_scale=config.slo_scale,
        total_rate_rps=rate_rps,
        split=split if isinstance(split, str) or rate_rps else "uniform",
        cv=config.cv,
    )
    found = [dataclasses.replace(m, name=n) for m, n in zip(models, names, strict=True)]
    for index, spec in enumerate(specs):
        slo_s = spec.slo_s
        if spec.slo_scale is not None:
            slo_s = spec.slo_scale * profile.single_device_latency_s(spec.type)
        if slo_s is not None:
            found[index] = dataclasses.replace(found[index], slo_s=slo_s)
    return tuple(found)


def _of_log(
    config: Config, log: Workload, names: Sequence[str]
) -> tuple[TrafficSource, list[float]]:
    """Where workloads come from, and mean rates."""
    from beta_jax import traces
    from beta_jax.planning import Log

    source = Log(log, config.block_s)
    span_s = request_files.span_s(log)
    counts = np.bincount(log.model[log.model > UNREGISTERED], minlength=len(names))
    if not config.fit:
        return source, (counts / span_s).tolist()
    trace = traces.ArrivalTrace(
        "log", "requests", names, log.arrival_s, log.model, log.arrival_s[0]
    )
    return _fitted(config, trace, len(names))


def _of_trace(config: Config, num_models: int) -> tuple[TrafficSource, list[float]]:
    """The same; requests of a trace with less functions than models are dealt out in turn."""
    from beta_jax import traces

    trace = traces.open_trace(str(input_path(str(config.trace))))
    if config.fit or not isinstance(trace, traces.ArrivalTrace):
        return _fitted(config, trace, num_models)
    first, last = trace.bounds(config.start, config.end)
    seen = len(np.unique(trace.between(first, last).function))
    own = num_models if seen >= num_models else 1
    log = traces.replay(trace, own, start=config.start, end=config.end, process="vanilla")
    if own < num_models:
        log = dataclasses.replace(log, model=np.arange(len(log), dtype=np.int32) % num_models)
    return _of_log(config, log, [str(i) for i in range(num_models)])


def _fitted(config: Config, trace: Any, num_models: int) -> tuple[TrafficSource, list[float]]:
    from beta_jax import traces
    from beta_jax.planning import Fitted

    fits = traces.fit_traffic(
        trace, num_models, start=config.start, end=config.end, window_s=config.fit_window_s
    ).scaled(rate=config.rate_scale * traces.reference_scale(trace))
    return Fitted(fits, config.block_s), fits.rate_rps.mean(axis=1).tolist()


def draw(directory: Path) -> list[Path]:
    return plan_figures.draw_plan(directory)


TASK = Task(files=FILES, run=execute, draw=draw)
