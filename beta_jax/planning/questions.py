"""What do I need for 99 %? Questions of a planner, and their answers: `beta_jax.plan`."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from beta_jax.analysis.metrics import utilisation
from beta_jax.analysis.misses import MissReason, miss_reasons
from beta_jax.checks import require_numbers, require_whole, whole_numbers
from beta_jax.placement.devices import node_devices
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.planning.boundary import Line, find_boundaries
from beta_jax.planning.outages import node_weights, one_node_down, weighted
from beta_jax.planning.traffic import TrafficSource
from beta_jax.planning.trials import Of, Setting, Trial, Trials
from beta_jax.search.bounds.served import ServedBound
from beta_jax.search.instances import fits_alone, fitting_configs
from beta_jax.simulator import simulate
from beta_jax.simulator.engine import idle_ticks, slo_ticks
from beta_jax.types import NO_DEADLINE, TICKS_PER_SECOND, Workload

Question = Literal["devices", "rate", "slo", "cv"]
QUESTIONS: tuple[Question, ...] = ("devices", "rate", "slo", "cv")
STEP = 1.05
"""Factor between neighbouring rates, CVs and SLOs."""
RANGE = {"rate": (0.05, 20.0), "slo": (0.1, 20.0), "cv": (0.1, 10.0)}
"""Of their factors."""
MOST_SEEDS = 10_000
"""More than these nobody simulates to tell two settings apart."""
BUSY = 0.8
"""A placement that misses the target with its devices busy for more than this lacks work."""
BINDS = {
    MissReason.NO_REPLICA: "memory",
    MissReason.SLO_TOO_SHORT: "SLO",
    MissReason.UNFIT_GROUP: "SLO",
}
"""What a miss for each reason says; the others are of work or of bursts."""


class PlanError(ValueError):
    """A question that has no answer, whatever is tried."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a question, and what is known about it; `str()` says it in a line.

    best: what to deploy; None: nothing that was allowed meets the target. missed: its neighbour
    that does not, or without an answer the best that was tried. easier: its other neighbour.
    frontier: for each number of devices of the other pools the fewest of the first that do.
    trials: all that were made. binds: what the neighbour lacks: memory, work, bursts or SLO.
    headroom: by which factor rates may grow as it is placed. one_node_down: attainment with the
    worst node gone for good; with_failures: with at most one node down, as often as devices fail
    (NaN where that is not told). violations: settings that miss the target although harder ones
    meet it.
    """

    question: Question
    target: float
    of: Of
    best: Trial | None
    missed: Trial | None
    easier: Trial | None
    frontier: tuple[Trial, ...]
    trials: tuple[Trial, ...]
    binds: str
    headroom: float
    one_node_down: float
    with_failures: float
    violations: tuple[Trial, ...]

    @property
    def placement(self) -> Placement | Schedule:
        """To deploy. Raises PlanError if nothing meets the target."""
        if self.best is None:
            raise PlanError(str(self))
        return self.best.placement

    @property
    def undecided(self) -> list[Trial]:
        """Trials beside the boundary whose interval contains the target."""
        beside = [trial for trial in (self.missed, self.best) if trial is not None]
        return [trial for trial in beside if not trial.decided(self.target)]

    @property
    def seeds_to_decide(self) -> int | None:
        """About how many seeds would decide what is undecided; None: nothing is, or too many."""
        needed = [trial.seeds_to_decide(self.target) for trial in self.undecided]
        return math.ceil(max(needed)) if needed and max(needed) < MOST_SEEDS else None

    def value(self, trial: Trial) -> str:
        """What the question varies, of a trial, in words."""
        setting = trial.setting
        if self.question != "devices":
            what = {"rate": "rates", "slo": "SLOs", "cv": "CVs"}[self.question]
            return f"{getattr(setting, self.question):.3g} times the {what}"
        names = trial.problem.cluster.names
        if len(names) == 1:
            (number,) = setting.num_devices
            return f"{number} device{'s' if number > 1 else ''}"
        pools = zip(setting.num_devices, names, strict=True)
        return " + ".join(f"{number} {name}" for number, name in pools if number)

    def rows(self) -> list[dict[str, Any]]:
        """A row per trial, in order of what the question varies."""
        rows = []
        for trial in sorted(self.trials, key=lambda trial: trial.setting):
            cluster, setting = trial.problem.cluster, trial.setting
            devices = {
                f"num_devices_{name}" if len(cluster.names) > 1 else "num_devices": n
                for name, n in zip(cluster.names, setting.num_devices, strict=True)
            }
            rows.append(
                {"question": self.question}
                | devices
                | {"rate": setting.rate, "cv": setting.cv, "slo": setting.slo}
                | {"price_per_hour": cluster.price_per_hour, "layout": str(trial.placement)}
                | {"attainment": trial.interval.mean}
                | {"low": trial.interval.low, "high": trial.interval.high}
                | {"seeds": trial.interval.num, "meets": trial.meets(self.target)}
                | {"decided": trial.decided(self.target), "answer": trial is self.best}
                | {"frontier": trial in self.frontier}
            )
        return rows

    def __str__(self) -> str:
        whom = "requests" if self.of == "all" else "the worst-served model's requests"
        goal = f"{100 * self.target:g} % of {whom} in time"
        if self.best is None:
            assert self.missed is not None
            found = f"{self.value(self.missed)} ({_percent(self.missed)})"
            line = f"nothing that is allowed gives {goal}: the best is {found}"
            return f"{line}; what binds is {self.binds}"
        line = f"{self.value(self.best)} ({_percent(self.best)})"
        if self.missed is not None:
            line += f", not {self.value(self.missed)} ({_percent(self.missed)})"
        elif self.question != "devices":
            line += f", and {'less' if self.question == 'slo' else 'more'} was not tried"
        line = f"for {goal}: {line}{self._doubt()}"
        price = self.best.problem.cluster.price_per_hour
        line += "" if math.isnan(price) else f"; {price:.6g} per hour"
        line += f"; what binds is {self.binds}" if self.missed is not None else ""
        if self.question != "rate":
            line += f"; rates may grow to {self.headroom:.2f} times"
        if not math.isnan(self.one_node_down):
            which = "worst" if len(node_devices(self.best.problem.cluster)) > 1 else "only"
            line += f"; {100 * self.one_node_down:.3g} % with the {which} node down"
        if not math.isnan(self.with_failures):
            line += f", {100 * self.with_failures:.4g} % over all failures"
        return line

    def _doubt(self) -> str:
        """Between what the answer is, if intervals contain the target."""
        if not self.undecided:
            return ""
        ends = [
            self.missed if self.missed in self.undecided else self.best,
            self.easier if self.best in self.undecided else self.best,
        ]
        low, high = (self.value(end) if end else "more" for end in ends)
        seeds = self.seeds_to_decide
        tell = f"about {seeds} seeds would tell" if seeds is not None else "too close to tell"
        return f"; undecided between {low} and {high} ({tell})"


def _percent(trial: Trial) -> str:
    mean, low, high, _ = trial.interval
    return f"{100 * mean:.2f} %, {100 * low:.2f} to {100 * high:.2f}"


def plan(
    problem: Problem,
    traffic: TrafficSource,
    question: Question = "devices",
    *,
    target: float = 0.99,
    of: Of = "all",
    seeds: int = 40,
    policy: str = "mp-search",
    warmup_s: float = 10.0,
    steps: Sequence[int] | None = None,
    mtbf_h: float | None = None,
    mttr_h: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Answer a question of capacity, tested on traffic that no placement was trained on.

    question: `devices`, the fewest, of several pools the cheapest mix of them, where the problem's
    cluster says how many may be had at most; or on that cluster the highest rate (`rate`), the
    tightest SLO (`slo`) or the largest CV (`cv`), each as a factor of what is given.
    traffic: where workloads come from: `Log`, `Generated` or `Fitted`. target: the mean SLO
    attainment over `seeds` test workloads, `warmup_s` left out at both ends. steps: devices of each
    pool come in multiples of this. mtbf_h, mttr_h: of a device, mean hours between failures and to
    repair, see `node_weights`. say: is told what is being done.

    Raises PlanError where no cluster of any size could do it, and says why; ValueError for a
    target that is not inside (0, 1), a pool without price, and what the source does not allow.
    """
    if not (isinstance(question, str) and question in QUESTIONS):
        raise ValueError(f"questions are {', '.join(QUESTIONS)}, got {question!r}")
    if not (isinstance(of, str) and of in get_args(Of)):
        raise ValueError(f"of is {' or '.join(get_args(Of))}, got {of!r}")
    require_numbers(target=target)
    require_whole("seeds", seeds, 2, MOST_SEEDS)
    if target == 1:
        raise ValueError("a target of 100 % can never be confirmed by sampling: ask for 99.9 %")
    if not 0 < target < 1:
        raise ValueError(f"a target is a share inside (0, 1), got {target:g}")
    if (mtbf_h is None) != (mttr_h is None):
        raise ValueError("mtbf_h and mttr_h go together: how often devices fail, and for how long")
    pools = problem.cluster.pools
    each = whole_numbers("steps", [1] * len(pools) if steps is None else steps, np.int64)
    if each.shape != (len(pools),) or (each < 1).any():
        raise ValueError(f"steps must be {len(pools)} numbers >= 1, one for each pool")
    steps = each.tolist()
    if mtbf_h is not None and mttr_h is not None:
        node_weights(problem.cluster, mtbf_h, mttr_h)
    if question == "devices" and len(pools) > 1:
        for pool in pools:
            if math.isnan(pool.price_per_hour):
                raise ValueError(f"pool {pool.name} has no price_per_hour: which mix is cheapest?")
    trials = Trials(problem, traffic, of=of, seeds=seeds, policy=policy, warmup_s=warmup_s)
    full = Setting(tuple(pool.num_devices for pool in pools))
    workload = trials.workloads(full)[1][0]
    _require_possible(problem, workload, target, of, question)
    if question == "devices":
        lines = _device_lines(problem, workload, target, of, steps)
    else:
        lines = [_factor_line(question, full)]

    def attempt(settings: Sequence[Setting]) -> list[Trial]:
        say(f"{len(settings)} settings")
        return trials(settings)

    find_boundaries(lines, target, attempt, beside=len(lines) == 1)
    met = [line.trials[i] for line in lines if (i := line.meeting(target)) is not None]
    best = min(met, key=_price, default=None) if len(lines) > 1 else next(iter(met), None)
    missed = easier = None
    if len(lines) > 1:
        best, missed = _descend(best, steps, target, attempt)
    elif best is not None:
        (line,) = lines
        missed = line.trials.get(line.missing(target))
        easier = line.trials.get((line.meeting(target) or 0) + 1)
    if best is None:
        missed = max(trials.made.values(), key=lambda trial: trial.interval.mean)
    say("what it means")
    return Answer(
        question,
        target,
        of,
        best,
        missed,
        easier,
        _undominated(met if best is None or best in met else [*met, best]),
        tuple(trials.made.values()),
        _binds(missed, trials) if missed is not None else "",
        _headroom(best, trials, target) if best is not None else math.nan,
        *_outages(best, trials, mtbf_h, mttr_h),
        tuple(line.trials[i] for line in lines for i in line.violations(target))
        if question != "devices"
        else _out_of_order(list(trials.made.values()), target),
    )


def _out_of_order(trials: Sequence[Trial], target: float) -> tuple[Trial, ...]:
    """Those that miss the target although no more devices of any pool meet it."""
    met = [trial for trial in trials if trial.meets(target)]
    missed = [trial for trial in trials if not trial.meets(target)]
    return tuple(trial for trial in missed if any(_within(other, trial) for other in met))


def _within(a: Trial, b: Trial) -> bool:
    """Whether a has at most as many devices of every pool as b."""
    pairs = zip(a.setting.num_devices, b.setting.num_devices, strict=True)
    return all(mine <= others for mine, others in pairs)


def _price(trial: Trial) -> float:
    return trial.problem.cluster.price_per_hour


def _descend(
    best: Trial | None,
    steps: Sequence[int],
    target: float,
    attempt: Callable[[Sequence[Setting]], list[Trial]],
) -> tuple[Trial | None, Trial | None]:
    """A mix that meets the target while none with a step less of a pool does; the best of these."""
    while best is not None:
        devices = best.setting.num_devices
        less = [
            tuple(n - step * (i == pool) for i, n in enumerate(devices))
            for pool, step in enumerate(steps)
        ]
        fewer = attempt([Setting(n) for n in less if min(n) >= 0 and any(n)])
        if not (met := [trial for trial in fewer if trial.meets(target)]):
            return best, max(fewer, key=lambda trial: trial.interval.mean, default=None)
        best = min(met, key=_price)
    return None, None


def _undominated(found: Sequence[Trial]) -> tuple[Trial, ...]:
    """Those that no other one needs at most as many devices of every pool for."""
    return tuple(
        trial
        for trial in found
        if not any(other is not trial and _within(other, trial) for other in found)
    )


def _require_possible(
    problem: Problem, workload: Workload, target: float, of: Of, question: Question
) -> None:
    """Raise PlanError for what no number of devices can serve."""
    if not len(workload):
        raise PlanError("no request arrives in the traffic: there is nothing to plan for")
    configs = sorted({c for m in problem.models for c in problem.profile.configs(m.type)})
    fits = fits_alone(problem, configs)
    allowed = np.isin(
        np.arange(len(configs)), [*map(configs.index, fitting_configs(problem, configs))]
    )
    for index, model in enumerate(problem.models):
        if not (fits[index] & allowed).any():
            raise PlanError(f"model {model.name} ({model.type}) fits no pool at any configuration")
    if question == "slo":
        return
    idle = np.where(fits, idle_ticks(problem, configs), NO_DEADLINE)
    hopeless = np.flatnonzero(idle.min(1) > slo_ticks(problem))
    share = np.isin(workload.model, hopeless).mean()
    if len(hopeless) and (of == "worst_model" or share > 1 - target):
        first = hopeless[0]
        model, config = problem.models[first], configs[int(idle[first].argmin())]
        fastest_s = idle[first].min() / TICKS_PER_SECOND
        raise PlanError(
            f"no cluster of any size serves {100 * target:g} %: the SLO of {model.name}, "
            f"{model.slo_s:.4g} s, is below its service alone, {fastest_s:.4g} s at best "
            f"(at {config})"
            + (f"; {len(hopeless) - 1} more are alike" if hopeless[1:].size else "")
        )


def _device_lines(
    problem: Problem, workload: Workload, target: float, of: Of, steps: Sequence[int]
) -> list[Line]:
    """For each number of devices of the other pools, the numbers of the first."""
    for step in steps:
        if step < 1:
            raise ValueError(f"devices come in steps of 1 at least, got {step}")
    sizes = [
        range(0, p.num_devices + 1, s) for p, s in zip(problem.cluster.pools, steps, strict=True)
    ]
    bound = ServedBound(problem, workload)
    models = range(len(problem.models))
    needed = target * len(workload) if of == "all" else 0.0
    lines = []
    for others in itertools.product(*sizes[1:]):
        settings = [Setting((n, *others)) for n in sizes[0] if n or any(others)]
        able = (bound(models, setting.num_devices) >= needed for setting in settings)
        start = next((i for i, enough in enumerate(able) if enough), len(settings) - 1)
        if settings:
            lines.append(Line(settings, start))
    return lines


def _factor_line(question: Question, full: Setting) -> Line:
    low, high = RANGE[question]
    count = round(math.log(high / low) / math.log(STEP))
    factors = [float(f"{low * STEP**i:.4g}") for i in range(count + 1)]
    if question != "slo":
        factors.reverse()
    settings = [Setting(full.num_devices, **{question: factor}) for factor in factors]
    return Line(settings, gallops=False)


def _binds(trial: Trial, trials: Trials) -> str:
    """What most misses of a trial say."""
    workload = trials.workloads(trial.setting)[1][0]
    (outcome,) = simulate(trial.problem, trial.placement, workload, outputs="requests")
    counts = miss_reasons(trial.problem, trial.placement, outcome).counts.sum((0, 1))
    reason = MissReason(int(counts.argmax()))
    if reason in BINDS:
        return BINDS[reason]
    busy = utilisation(trial.problem, trial.placement, outcome, 1).of_group[:, 0]
    return "work" if np.nanmean(busy) > BUSY else "bursts"


def _outages(
    trial: Trial | None, trials: Trials, mtbf_h: float | None, mttr_h: float | None
) -> tuple[float, float]:
    """Attainment with the worst node down, and weighted by how often each is."""
    if trial is None or not isinstance(trial.placement, Placement):
        return math.nan, math.nan
    cluster = trial.problem.cluster
    without = one_node_down(cluster, trial.placement)
    down = [t.interval.mean for t in trials.test([(trial.setting, p) for p in without])]
    if mtbf_h is None or mttr_h is None:
        return min(down), math.nan
    return min(down), weighted(cluster, down, trial.interval.mean, mtbf_h, mttr_h)


def _headroom(trial: Trial, trials: Trials, target: float) -> float:
    """By which factor rates may grow from the trial's, with its placement; to 5 %."""
    rate = trial.setting.rate
    settings = [
        trial.setting._replace(rate=float(f"{rate * STEP**i:.4g}")) for i in range(60, -1, -1)
    ]
    line = Line(settings, gallops=False)
    line.trials[60] = trial
    find_boundaries(
        [line],
        target,
        lambda some: trials.test([(setting, trial.placement) for setting in some]),
        beside=False,
    )
    return settings[line.meeting(target) or 0].rate / rate
