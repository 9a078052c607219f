"""What the paper says of each section, and whether the tables of a run agree.

A claim is what the paper states, how that is read off a table, and from when on it holds. Shapes
(`nearly everywhere`) hold at `NEARLY` of the points; a factor in part if it is there, but smaller.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from beta_jax.profiles.profile import load_profile
from beta_jax.types import ParallelConfig
from experiments.paper.artifact.table_1 import TABLE_1
from experiments.report import tables
from experiments.report.figures import display_name
from experiments.report.tables import Row

YES, PART, NO, UNKNOWN = "yes", "in part", "no", "not run"
NEARLY, OFTEN = 0.9, 0.5
"""Shares of points from which on a claim about all of them holds, or holds in part."""
EQUAL = 0.005
"""SLO attainments that differ by less are equal: a printed figure does not tell them apart."""
EXACT_TO = 1e-9
"""SLO attainments that count the same requests differ by less, as they were printed in full."""


class Finding(NamedTuple):
    """What a table says of a claim; why: where it does not agree."""

    found: str
    agrees: str
    why: str = ""

    @property
    def row(self) -> Row:
        return {"agrees": self.agrees, "found": self.found, "why": self.why}


class NotThereError(ValueError):
    """A table has no rows that a claim is read off: the section was scaled down."""


class Tables:
    """The tables in the folder of a section, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._read = folder, dict[str, list[Row]]()

    def __getitem__(self, name: str) -> list[Row]:
        """Raises ResultsError."""
        if name not in self._read:
            self._read[name] = tables.read_values(self._folder / f"{name}.csv")
        return self._read[name]

    def curves(
        self, panel: str = "", name: str = "table", column: str = "slo_attainment"
    ) -> dict[str, Curves]:
        """By panel, x and policy: means of a column.

        panel: what the names of panels end in. Raises NotThereError if none does.
        """
        samples: dict[str, dict[float, dict[str, list[float]]]] = {}
        for row in self[name]:
            if not row["panel"].endswith(panel):
                continue
            policies = samples.setdefault(row["panel"], {}).setdefault(float(row["x"]), {})
            policies.setdefault(row["policy"], []).append(row[column])
        if not samples:
            raise NotThereError(f"{name} has no panel {panel}")
        return {
            panel: {x: {p: fmean(v) for p, v in of.items()} for x, of in sorted(points.items())}
            for panel, points in samples.items()
        }


Curves = Mapping[float, Mapping[str, float]]
"""A value by x, then policy."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What the paper says (section, claim, published), and what reads it off the tables."""

    section: str
    claim: str
    published: str
    judge: Callable[[Tables], Finding]


def compare(directory: Path, sections: Sequence[str]) -> list[Row]:
    """A line per claim; those of other sections were not run, come last. Raises ResultsError."""
    found = []
    read = {name: Tables(directory / name) for name in sections}
    for claim in CLAIMS:
        finding = Finding("", UNKNOWN)
        if claim.section in read:
            with contextlib.suppress(NotThereError):
                finding = claim.judge(read[claim.section])
        found.append(
            {"section": claim.section, "claim": claim.claim, "published": claim.published}
            | finding.row
        )
    return sorted(found, key=lambda row: row["agrees"] == UNKNOWN)


# How claims are judged.


def share(good: Iterable[bool], what: str = "points", why: str = "") -> Finding:
    """Of how many points it is true."""
    verdicts = [*good]
    part = sum(verdicts) / len(verdicts)
    agrees = YES if part >= NEARLY else PART if part >= OFTEN else NO
    return Finding(f"{sum(verdicts)} of {len(verdicts)} {what}", agrees, why if part < 1 else "")


def named(policies: Mapping[str, float], name: str) -> float:
    """The best of the policies that figures call so."""
    return max(value for policy, value in policies.items() if display_name(policy) == name)


def beginning(policies: Mapping[str, float], start: str) -> float:
    """The best of the policies whose names begin so."""
    return max(value for policy, value in policies.items() if policy.startswith(start))


def lead(policies: Mapping[str, float]) -> float:
    """How far Beta is above the best of the others."""
    others = (value for policy, value in policies.items() if display_name(policy) != "Beta")
    return named(policies, "Beta") - max(others)


def percent(*values: float) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in values) + " %"


def points(value: float) -> str:
    """Of a difference, in percentage points."""
    return f"{round(100 * value, 1) + 0.0:.1f} points"


def judged(found: str, holds: bool, why: str = "") -> Finding:
    return Finding(found, YES if holds else NO, "" if holds else why)


# Environment, dataset, profiling.


def exact(tables: Tables) -> Finding:
    rows = tables["selfcheck"]
    passed = sum(row["verdict"] == "pass" for row in rows)
    return judged(f"{passed} of {len(rows)}", passed == len(rows))


def of_traces(statistic: str, holds: Callable[[float, float], bool]) -> Callable[[Tables], Finding]:
    def judge(tables: Tables) -> Finding:
        [row] = [row for row in tables["trace_report"] if row["statistic"] == statistic]
        _, first, second = row.values()
        return judged(f"{first:.3g} and {second:.3g}", holds(first, second))

    return judge


def against_table_1(
    of: Callable[[str, ParallelConfig], float], published: Callable[[Any], float]
) -> Finding:
    off = {
        kind: of(kind, ParallelConfig(1, known.devices)) / published(known) - 1
        for kind, known in TABLE_1.items()
    }
    worst = sorted(off, key=lambda kind: -abs(off[kind]))
    agrees = YES if abs(off[worst[0]]) < 0.05 else PART if abs(off[worst[1]]) < 0.1 else NO
    found = f"{worst[0]} {100 * off[worst[0]]:+.1f} %, all others within "
    return Finding(
        found + f"{100 * abs(off[worst[1]]):.1f} %",
        agrees,
        "" if agrees == YES else "measured profiles differ from Table 1, and the profile is theirs",
    )


def latencies(_: Tables) -> Finding:
    profile = load_profile("v100")
    return against_table_1(
        lambda kind, config: float(profile.stage_latency_s(kind, config).sum()),
        lambda known: known.latency_s,
    )


def weights(_: Tables) -> Finding:
    profile = load_profile("v100")
    return against_table_1(
        lambda kind, config: float(profile.weight_bytes(kind, config).sum()) / 1e9,
        lambda known: known.weights_gb,
    )


def losses(tables: Tables) -> Finding:
    """Of the largest number of devices."""
    rows = tables["decomposition"]
    most = max(row["devices"] for row in rows)
    ms = {(r["split"], r["part"]): 1e3 * r["seconds"] for r in rows if r["devices"] == most}
    uneven, sent = ms["inter-operator", "uneven partition"], ms["inter-operator", "communication"]
    within = ms["intra-operator", "communication"]
    found = (
        f"of {most} devices: {uneven:.0f} ms uneven stages, {sent:.0f} ms communication; "
        f"operators {within:.0f} ms communication"
    )
    return judged(found, uneven > sent and within > sent)


def scaling(tables: Tables) -> Finding:
    rows = tables["scaling"]
    most = max(row["devices"] for row in rows)
    of = {row["strategy"]: row for row in rows if row["devices"] == most}
    pipeline, operator = of["inter-operator"], of["intra-operator"]
    found = (
        f"{most} devices: {operator['latency_s']:.3f} against {pipeline['latency_s']:.3f} s, "
        f"{operator['throughput_rps']:.0f} against {pipeline['throughput_rps']:.0f} requests/s"
    )
    holds = operator["latency_s"] < pipeline["latency_s"]
    return judged(found, holds and operator["throughput_rps"] < pipeline["throughput_rps"])


# Section 6.2 and others on SLO attainment.

SWEPT = "read off swept values, which are coarse, on other traffic than the paper's"


def factor(x_name: str, published: float) -> Callable[[Tables], Finding]:
    """The largest factor by which Beta sustains more than a baseline, over all columns."""

    def judge(tables: Tables) -> Finding:
        swept = [row for row in tables["headline"] if row["x_name"] == x_name]
        if not swept:
            raise NotThereError(f"headline has no {x_name}")
        rows = [row for row in swept if row["bound"] in ("=", ">=")]
        if not rows:
            return Finding("no curve reaches 99 % within the sweep", NO, SWEPT)
        best = max(rows, key=lambda row: row["factor"])
        bound = ">= " if best["bound"] == ">=" else ""
        where = f"{best['panel'].split()[0]}, over {display_name(best['other'])}"
        value = best["factor"]
        agrees = YES if value >= 0.95 * published else PART if value > 1 else NO
        why = "" if agrees == YES else SWEPT
        return Finding(f"{bound}{value:.3g} x ({where})", agrees, why)

    return judge


def above_the_others(tables: Tables) -> Finding:
    leads = [(lead(of), panel, x) for panel, xs in tables.curves().items() for x, of in xs.items()]
    worst = min(leads)
    why = f"at worst {100 * -worst[0]:.1f} points below the best, in {worst[1]} at {worst[2]:g}"
    return share((value >= -EQUAL for value, *_ in leads), why=why)


def above(policy: str, other: str, because: str = "") -> Callable[[Tables], Finding]:
    """Policies by the beginnings of their names; because: why it may not be so everywhere."""

    def judge(tables: Tables) -> Finding:
        leads = [
            (beginning(of, policy) - beginning(of, other), panel, x)
            for panel, xs in tables.curves().items()
            for x, of in xs.items()
        ]
        worst = min(leads)
        why = f"at worst {100 * -worst[0]:.1f} points below, in {worst[1]} at {worst[2]:g}{because}"
        return share((value >= -EQUAL for value, *_ in leads), why=why)

    return judge


OVERLOADED = ": the devices are overloaded, and models that were rare in training have none left"


def _mean_by_rank(
    curves: Mapping[str, Curves], value: Callable[[Mapping[str, float]], float]
) -> Any:
    """Means over panels at the first, the best and the last x of each."""
    ends = [[value(of) for of in xs.values()] for xs in curves.values()]
    return tuple(fmean(of) for of in zip(*((e[0], max(e), e[-1]) for e in ends), strict=True))


def largest_at_medium_slo(tables: Tables) -> Finding:
    first, most, last = _mean_by_rank(tables.curves("slo_scale"), lead)
    found = (
        f"{points(first)} at the tightest, {points(most)} at most, {points(last)} at the loosest"
    )
    return judged(found, first < most and last < most)


def larger_under_bursts(tables: Tables) -> Finding:
    panels = [[*xs.values()] for xs in tables.curves("cv_scale").values()]
    smooth = fmean(lead(of[0]) for of in panels)
    bursty = fmean(lead(of[-1]) for of in panels)
    found = f"{points(smooth)} at the lowest CV, {points(bursty)} at the highest"
    return judged(found, bursty > smooth)


def converge_at_loose_slo(tables: Tables) -> Finding:
    def spread(of: Mapping[str, float]) -> float:
        return max(of.values()) - min(of.values())

    _, most, last = _mean_by_rank(tables.curves("slo_scale"), spread)
    found = f"best to worst {points(last)} at the loosest, {points(most)} at most"
    return judged(found, last < most / 3)


def published_point(panel: str, x: float, published: Sequence[float]) -> Callable[..., Finding]:
    """SR, Clockwork++ and Beta at a point of S3 that the authors published as data."""

    def judge(tables: Tables) -> Finding:
        of = tables.curves(panel)[panel][x]
        names = ("SR", "Clockwork++", "Beta")
        ours = [named(of, name) for name in names]
        near = max(abs(a - b) for a, b in zip(ours, published, strict=True)) <= 0.03
        alike = sorted(ours) == ours
        agrees = YES if near else PART if alike else NO
        why = "other traffic: only the order can agree" if alike else "other traffic"
        return Finding(percent(*ours), agrees, "" if near else why)

    return judge


def most_operator_parallel(tables: Tables) -> Finding:
    """Which manual choice is the best at the tightest SLO."""
    of = next(iter(tables.curves("slo")["slo"].values()))
    manual = {p: value for p, value in of.items() if p.startswith("mp-equal")}
    best = max(manual, key=lambda p: manual[p])
    most = max(manual, key=lambda p: int(p.rpartition("-")[2]))
    found = ", ".join(f"{display_name(p)} {percent(value)}" for p, value in manual.items())
    return judged(found, best == most)


PUBLISHED_GROUPS = "2x(1,4,8)"
"""Of figure 12, at every point, by the published simulator: as tables write it."""


def groups_of_beta(tables: Tables) -> Finding:
    """Which groups Beta finds most often, and whether they are the published ones."""
    rows = [row for row in tables["table"] if display_name(row["policy"]) == "Beta"]
    if not rows:
        raise NotThereError("table has no row of Beta")
    layout, _ = Counter(row["placement"] for row in rows).most_common(1)[0]
    finding = share(row["placement"] == PUBLISHED_GROUPS for row in rows)
    most = "these" if layout == PUBLISHED_GROUPS else f"{groups_in_words(layout)} most often; these"
    return finding._replace(found=f"{most} at {finding.found}")


def groups_in_words(layout: str) -> str:
    """Of equal groups, such as `2x(1,4,8)`: data, operator, pipeline."""
    match = re.fullmatch(r"(\d+)x\(1,(\d+),(\d+)\)", layout)
    if match is None:
        return layout
    num, operator, pipeline = match.groups()
    return f"{num} groups, each {pipeline} pipeline stages x {operator} operator-parallel devices"


# Section 3.


def pooled(case: str, published: float) -> Callable[[Tables], Finding]:
    """How many times as fast pooling is: without and with the overheads of the system."""

    def judge(tables: Tables) -> Finding:
        rows = [r for r in tables["two_models"] if r["case"] == case and r["policy"] == "mp-search"]
        of = {row["overheads"]: row for row in rows}
        found = ", ".join(
            f"{of[name]['ratio']:.3g} +- {of[name]['ratio_high'] - of[name]['ratio']:.1g} {shown}"
            for name, shown in (("off", "without overheads"), ("on", "with"))
        )
        ends = [of[name][f"ratio_{end}"] for name in ("off", "on") for end in ("low", "high")]
        holds = min(ends) - 0.05 <= published <= max(ends) + 0.05
        return judged(found, holds, "chance weighs: one queue is nearly always busy")

    return judge


def theory(tables: Tables) -> Finding:
    off = [abs(row["difference_in_se"]) for row in tables["theory"]]
    found = f"{len(off)} latencies, at most {max(off):.1f} standard errors off"
    return judged(found, max(off) <= 4)


def memory(tables: Tables) -> Finding:
    """Each kind: replication's latency over pooling's with the least and the most memory."""
    found, holds = [], True
    for kind, xs in tables.curves("", "memory", "latency_mean_s").items():
        pooled = [of[p] for of in xs.values() for p in of if p.startswith("mp-")]
        replicated = [of["sr-uniform"] for of in xs.values() if "sr-uniform" in of]
        least, most = replicated[0] / pooled[0], replicated[-1] / min(pooled)
        found.append(f"{kind} {least:.2g} and {most:.2g} times as slow")
        holds &= least > 1.1 and abs(most - 1) < 0.1
    return judged("; ".join(found), holds)


def _ratios(tables: Tables, name: str) -> list[tuple[float, float]]:
    """x, and by how much pooling is faster there."""
    [xs] = tables.curves("", name, "latency_mean_s").values()
    return [(x, of["sr-uniform"] / of["mp-greedy-8"]) for x, of in xs.items()]


def faster_below_saturation(tables: Tables) -> Finding:
    ratios = _ratios(tables, "rate")
    best = max(ratio for _, ratio in ratios)
    last = ratios[-1][1]
    found = f"up to {best:.2f} times as fast, {last:.2f} times at {ratios[-1][0]:g} requests/s"
    return judged(found, best > 1 and last < best)


def faster_under_bursts(tables: Tables) -> Finding:
    ratios = _ratios(tables, "cv")
    (low, smooth), (high, bursty) = ratios[0], ratios[-1]
    found = f"{smooth:.2f} times as fast at CV {low:g}, {bursty:.2f} times at CV {high:g}"
    return judged(found, bursty > 1 > smooth)


def tight_slos(tables: Tables) -> Finding:
    [xs] = tables.curves("", "slo").values()
    gains = [(x, of["mp-greedy-8"] - of["sr-uniform"]) for x, of in xs.items()]
    best, last = max(gains, key=lambda gain: gain[1]), gains[-1]
    found = f"{100 * best[1]:+.1f} points at SLO {best[0]:.3g}, {100 * last[1]:+.1f} at {last[0]:g}"
    return judged(found, best[1] > 0 > last[1])


def no_overhead(tables: Tables) -> Finding:
    """Pipelines with alpha = 1 against replication."""
    at: dict[float, dict[float | None, list[float]]] = {}
    for row in tables["overhead"]:
        alpha = row["pipeline_overhead"] if row["policy"].startswith("mp-") else None
        alpha = None if alpha is None else float(alpha)
        at.setdefault(float(row["x"]), {}).setdefault(alpha, []).append(row["slo_attainment"])
    means = [{alpha: fmean(v) for alpha, v in of.items()} for of in at.values()]
    least, most = 1.0, max(alpha for of in means for alpha in of if alpha is not None)
    good = [of[least] >= of[None] - EQUAL for of in means]
    bad = [of[most] >= of[None] - EQUAL for of in means]
    found = f"alpha 1 at {sum(good)} of {len(good)} SLOs, alpha {most:g} at {sum(bad)}"
    return judged(found, sum(good) >= NEARLY * len(good) and sum(bad) < sum(good))


# Batching.

SIZE = "batches of up to "


def _gain(tables: Tables, size: int, over: int, policy: str = "mp-search") -> list[float]:
    curves = tables.curves()
    ours, theirs = curves[f"{SIZE}{size}"], curves[f"{SIZE}{over}"]
    return [ours[x][policy] - theirs[x][policy] for x in ours]


def batches_of_two(tables: Tables) -> Finding:
    gains = _gain(tables, 2, 1)
    found = f"{100 * fmean(gains):+.1f} points on average, {100 * min(gains):+.1f} at worst"
    return judged(found, fmean(gains) > 0)


def larger_batches(tables: Tables) -> Finding:
    largest = max(int(panel.removeprefix(SIZE)) for panel in tables.curves())
    gains = _gain(tables, largest, 2)
    found = f"up to {largest}: {100 * fmean(gains):+.1f} points on average"
    return judged(f"{found}, {100 * max(gains):+.1f} at most", fmean(gains) < 0.02)


def best_with_batches(tables: Tables) -> Finding:
    curves = tables.curves()
    points = [(lead(of), x) for n in (1, 2) for x, of in curves[f"{SIZE}{n}"].items()]
    worst = min(points)
    why = f"at worst {100 * -worst[0]:.1f} points below the best, at SLO {worst[1]:g}"
    return share((value >= -EQUAL for value, _ in points), why=why)


# Points that were published.


def curves_of_the_published(tables: Tables) -> Finding:
    rows = tables["table"]
    off = [abs(row["found"] - row["published"]) for row in rows]
    alike = sum(row["placement"] == row["published_placement"] for row in rows)
    equal = sum(value < EXACT_TO for value in off)
    found = f"{equal} of {len(rows)} equal, {100 * max(off):.3g} points apart at most"
    return judged(f"{found}; {alike} placements have the same groups", equal == len(rows))


def simulated(tables: Tables) -> Finding:
    rows = tables["table"]
    equal = sum(round(row["simulated"], 3) == row["published"] for row in rows)
    return judged(f"{equal} of {len(rows)}", equal == len(rows))


def placed_afresh(tables: Tables) -> Finding:
    off = [row["placed_afresh"] - row["published"] for row in tables["table"]]
    mean, most = fmean(map(abs, off)), max(map(abs, off))
    found = f"{100 * mean:.2f} points on average, {100 * most:.1f} at most"
    return judged(found, mean < 0.005)


EVERYWHERE = "nearly everywhere"
CLAIMS = (
    Claim("environment", "what has an exact answer is simulated exactly", "theory", exact),
    Claim(
        "dataset",
        "MAF2 is burstier than MAF1 (CV per function and hour, median)",
        "MAF1 dense, MAF2 bursty",
        of_traces("CV within an hour, per function, median", lambda a, b: a < b),
    ),
    Claim(
        "dataset",
        "requests of MAF2 go to fewer functions (those that carry 90 %)",
        "MAF2 highly skewed",
        of_traces("functions that carry 90 %", lambda a, b: a > b),
    ),
    Claim("profiling", "latency of a model on its own", "Table 1", latencies),
    Claim("profiling", "weights of a model", "Table 1", weights),
    Claim(
        "profiling",
        "pipelines lose to uneven stages, operator parallelism to communication",
        "figure 8",
        losses,
    ),
    Claim(
        "profiling",
        "operator parallelism shortens latency, pipelines keep throughput",
        "figure 9",
        scaling,
    ),
    Claim("end_to_end", "fewer devices at 99 %", "2.3 x", factor("num_devices", 2.3)),
    Claim("end_to_end", "higher rate at 99 %", "10 x", factor("rate_scale", 10)),
    Claim("end_to_end", "higher CV at 99 %", "6 x", factor("cv_scale", 6)),
    Claim("end_to_end", "tighter SLO at 99 %", "2.5 x", factor("slo_scale", 2.5)),
    Claim("end_to_end", "Beta at or above SR and Clockwork++", EVERYWHERE, above_the_others),
    Claim(
        "end_to_end",
        "Beta's lead is larger under bursty traffic",
        "figure 11, CV",
        larger_under_bursts,
    ),
    Claim(
        "end_to_end",
        "Beta's lead is largest at medium SLOs",
        "figure 11, SLO",
        largest_at_medium_slo,
    ),
    Claim(
        "end_to_end",
        "at very loose SLOs all converge",
        "figure 11, SLO",
        converge_at_loose_slo,
    ),
    Claim(
        "end_to_end",
        "S3@MAF1, 32 devices: SR / Clockwork++ / Beta",
        "77.4 / 86.2 / 91.0 %",
        published_point("S3@MAF1 num_devices", 32.0, (0.774, 0.862, 0.910)),
    ),
    Claim(
        "end_to_end",
        "S3@MAF2, 32 devices: SR / Clockwork++ / Beta",
        "87.9 / 95.9 / 98.9 %",
        published_point("S3@MAF2 num_devices", 32.0, (0.879, 0.959, 0.989)),
    ),
    Claim("large_models", "Beta at or above every manual choice", "everywhere", above_the_others),
    Claim(
        "large_models",
        "at the tightest SLO operator parallelism is what helps",
        "figure 12",
        most_operator_parallel,
    ),
    Claim(
        "large_models",
        "the groups that Beta finds",
        f"{groups_in_words(PUBLISHED_GROUPS)} (the published simulator's, not the paper's)",
        groups_of_beta,
    ),
    Claim(
        "robustness",
        "static Beta above Clockwork++, which sees the test traffic",
        EVERYWHERE,
        above("mp-search", "sr-replace", OVERLOADED),
    ),
    Claim("robustness", "Beta above SR", EVERYWHERE, above("mp-search", "sr-greedy")),
    Claim(
        "ablation",
        "greedy placement at or above round robin",
        EVERYWHERE,
        above("mp-greedy", "mp-round-robin"),
    ),
    Claim(
        "ablation",
        "group partitioning at or above greedy placement alone",
        EVERYWHERE,
        above("mp-search-sep", "mp-greedy"),
    ),
    Claim(
        "motivation",
        "pooling, equal rates, Poisson: mean latency",
        "1.3 x as fast",
        pooled("equal rates, Poisson", 1.3),
    ),
    Claim(
        "motivation",
        "pooling, equal rates, CV 3: mean latency",
        "1.9 x as fast",
        pooled("equal rates, CV 3", 1.9),
    ),
    Claim(
        "motivation",
        "pooling, 20 % and 80 % of the rate: mean latency",
        "6.6 x as fast",
        pooled("20 % and 80 % of the rate, Poisson", 6.6),
    ),
    Claim(
        "motivation",
        "replication needs more memory: latency with the least and with the most",
        "figure 4",
        memory,
    ),
    Claim(
        "motivation",
        "pooling is faster, least so near saturation",
        "figure 5",
        faster_below_saturation,
    ),
    Claim("motivation", "pooling pays under bursty traffic", "figure 6", faster_under_bursts),
    Claim(
        "motivation",
        "pooling serves more at tight SLOs, less at very loose ones",
        "figure 7a",
        tight_slos,
    ),
    Claim(
        "motivation",
        "pipelines without overhead serve no less than replication",
        "figure 7b",
        no_overhead,
    ),
    Claim(
        "motivation",
        "simulated latencies are those of queueing theory",
        "figure 10, M/D/1",
        theory,
    ),
    Claim(
        "batching", "batches of two help Beta a little", "the paper's section 6.5", batches_of_two
    ),
    Claim("batching", "larger ones hardly more", "the paper's section 6.5", larger_batches),
    Claim(
        "batching",
        "Beta at or above SR and Clockwork++, batched or not",
        EVERYWHERE,
        best_with_batches,
    ),
    Claim(
        "published",
        "published placements, simulated: SLO attainment to three decimals",
        "104 points",
        simulated,
    ),
    Claim(
        "published",
        "placed afresh: SLO attainment minus the published one",
        "104 points",
        placed_afresh,
    ),
    Claim(
        "published_curves",
        "points of figure 12, placed afresh on the published simulator's profile: SLO attainment",
        "75 points of the published simulator",
        curves_of_the_published,
    ),
)


def text(ran: Sequence[Row], found: Sequence[Row]) -> str:
    """For a terminal."""
    columns = ("section", "seconds", "processor_s", "peak_gib", "published_time")
    shown = [{name: row[name] for name in columns} for row in ran]
    judged = [row for row in found if row["agrees"] != UNKNOWN]
    lines = [tables.to_text(shown)]
    if judged:
        named = [{name: row[name] for name in row if name != "why"} for row in judged]
        lines += ["", tables.to_text(named), ""]
        lines += [
            f"{row['agrees']}: {row['section']}, {row['claim']}: {row['why']}"
            for row in judged
            if row["why"]
        ]
        agree = sum(row["agrees"] == YES for row in judged)
        lines.append(f"\n{agree} of {len(judged)} claims agree")
    return "\n".join(lines)


def markdown(ran: Sequence[Row], found: Sequence[Row]) -> str:
    """The same as a page has it: a table of sections, and one of claims."""
    sections = [
        {
            "section": f"`{row['section']}`: {row['shows']}",
            "command": f"`{row['command'].rpartition(' ')[0]}`",
            "took here": f"{row['seconds']:.0f} s ({row['processor_s']:.0f} s of processors), "
            f"{row['peak_gib']:.1f} GiB",
            "published": row["published_time"],
            "writes": row["writes"],
        }
        for row in ran
    ]
    claims = [
        {name: row[name] for name in ("section", "claim", "published", "found")}
        | {"agrees": row["agrees"] + (f": {row['why']}" if row["why"] else "")}
        for row in found
        if row["agrees"] != UNKNOWN
    ]
    return "\n".join(map(_markdown, (sections, claims)))


def _markdown(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = [[*rows[0]], ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
