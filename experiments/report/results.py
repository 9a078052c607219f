"""Results of a list of points: rows, intervals and differences, as tables, DataFrame and figure."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beta_jax.analysis.statistics import CONFIDENCE, judge, looks, mean_interval, paired_difference
from experiments.engine.fields import render, walk
from experiments.engine.files import write, write_json
from experiments.engine.points import Place, PointResult, Replications
from experiments.report import tables
from experiments.report.tables import Row

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

FILES = ("table.csv", "intervals.csv", "differences.csv", "placements.json")
TRAINED_ON_TEST = (
    "Placements were trained on the traffic that they are tested on, or on traffic that begins "
    "with it: on other traffic they may do worse."
)
IF_USED = {
    "rules.batching": "off",
    "rules.max_batch": "1",
    "train_batched": "True",
    "load_gib_s": "none",
    "pools": "none",
}
"""Columns that a table has only where a row has another value."""
WITH_INTERVAL = ("slo_attainment", "latency_mean_s", "latency_p99_s")


def to_rows(results: Sequence[PointResult]) -> list[Row]:
    """The lines of results in a table: where they are drawn, their numbers, all parameters."""
    rows = [_to_row(result) for result in results]
    unused = [name for name in IF_USED if all(row[name] == IF_USED[name] for row in rows)]
    return [{name: row[name] for name in row if name not in unused} for row in rows]


def _to_row(result: PointResult) -> Row:
    point, record = result.point, result.record
    return {
        **point.place._asdict(),
        "policy": point.policy,
        "replication": result.replication,
        **record["metrics"],
        "placement": record["layout"],
        "train_score": record["train_score"],
        "num_simulations": record["num_simulations"],
        "trained_on_test": result.scenario.trained_on_test,
        **{leaf.name: render(leaf.value) for leaf in walk(result.scenario, "")},
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What a list of points came to, in the order of the points; shows itself in a notebook.

    replications: how many there were to be, and whether fewer could do.
    """

    results: Sequence[PointResult]
    replications: Replications
    figure: Callable[[Sequence[Row]], Figure] | None = None

    @property
    def rows(self) -> list[Row]:
        """A row per point and replication: metrics, placement, all parameters."""
        return to_rows(self.results)

    def warnings(self) -> list[list[str]]:
        """What policies had to say, each text once; those that only numbers tell apart together."""
        alike: dict[str, dict[str, None]] = {}
        for result in self.results:
            policy = result.point.policy
            for text in result.record["warnings"]:
                kind, *_ = re.split(r"\d", text.removeprefix(policy))
                alike.setdefault(policy + kind, {})[text] = None
        return [[*texts] for texts in alike.values()]

    def to_pandas(self) -> pandas.DataFrame:
        """`rows` as a DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows)

    def plot(self) -> Figure:
        """The experiment's figure, as a matplotlib Figure."""
        if self.figure is None:
            raise ValueError("these points have no figure of their own; use to_pandas().plot")
        return self.figure(self.rows)

    def _repr_html_(self) -> str:
        import pandas

        return str(pandas.DataFrame(self.intervals()).to_html(index=False))

    def samples(self, metric: str) -> dict[Place, dict[str, list[float]]]:
        """Values by place in the figure, then policy, in order of replication.

        Where several points of a policy are at one place, their mean.
        """
        found: dict[Place, dict[str, dict[int, list[float]]]] = {}
        for point, replication, _, record in self.results:
            policies = found.setdefault(point.place, {})
            values = policies.setdefault(point.policy, {}).setdefault(replication, [])
            values.append(record["metrics"][metric])
        return {
            place: {
                policy: [math.fsum(of[i]) / len(of[i]) for i in sorted(of)]
                for policy, of in policies.items()
            }
            for place, policies in found.items()
        }

    def intervals(self) -> list[Row]:
        """A row per point: means over the replications, each with its 95 % interval."""
        samples = {metric: self.samples(metric) for metric in WITH_INTERVAL}
        rows = []
        for place, policies in samples[WITH_INTERVAL[0]].items():
            for policy, values in policies.items():
                row = place._asdict() | {"policy": policy, "seeds": len(values)}
                for metric, of in samples.items():
                    interval = mean_interval(of[place][policy])
                    if metric == "slo_attainment":
                        interval = interval.within(0.0, 1.0)
                    row |= {
                        metric: interval.mean,
                        f"{metric}_low": interval.low,
                        f"{metric}_high": interval.high,
                    }
                rows.append(row)
        return rows

    def differences(self) -> list[Row]:
        """A row per point and pair of policies: attainment of `policy` minus that of `other`.

        Paired by traffic. Under sequential stopping the interval has the higher confidence with
        which all verdicts together are right in 95 % of runs, although looked at several times.
        """
        return [
            place._asdict() | {"policy": a, "other": b} | self._difference(policies, a, b)
            for place, policies in self.samples("slo_attainment").items()
            for a, b in itertools.combinations(reversed(policies), 2)
        ]

    def _difference(
        self, policies: Mapping[str, Sequence[float]], a: str, b: str, *, of_all: bool = False
    ) -> Row:
        """of_all: with the confidence at which all pairs of policies may be looked at."""
        num = len(policies[a])
        confidence = CONFIDENCE
        if self.replications.until_decided is not None:
            confidence = dict(looks(self.replications.seeds))[num]
        if of_all or self.replications.until_decided is not None:
            confidence = 1 - (1 - confidence) / math.comb(len(policies), 2)
        interval = paired_difference(policies[a], policies[b], confidence).within(-1.0, 1.0)
        return {
            "seeds": num,
            "difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "confidence": confidence,
            "verdict": judge(interval, self.replications.until_decided or 0.0),
        }

    def save(self, directory: Path) -> None:
        """Write `FILES`; equal results make equal bytes."""
        contents = (self.rows, self.intervals(), self.differences())
        for name, rows in zip(FILES, contents, strict=False):
            write(directory / name, tables.to_csv(rows))
        documents = [
            {"panel": point.panel, "x": render(point.x), "policy": point.policy}
            | {"replication": replication}
            | record["placement"]
            | {"warnings": record["warnings"]}
            for point, replication, _, record in self.results
        ]
        write_json(directory / FILES[-1], documents)

    def report(self) -> None:
        """Print a table per panel, what is decided, and warnings."""
        means = self.intervals()
        replicated = self.replications.seeds > 1
        print("SLO attainment (%)" + (", +- half a 95 % interval" if replicated else ""))
        panels = dict.fromkeys(row["panel"] for row in means)
        for panel in panels:
            own = [row for row in means if row["panel"] == panel]
            title = [f"\n{panel}:"] if len(panels) > 1 else [""]
            print(*title, tables.to_text(tables.pivot(own)), sep="\n")
        if replicated and (best := self._best()):
            print("\nIs the best better than the next best? Difference of SLO attainment (%), same")
            print("traffic for both; the intervals hold for all pairs of policies together\n")
            print(tables.to_text(best))
        policies = dict.fromkeys(result.point.policy for result in self.results)
        trained = [r.point.policy for r in self.results if r.scenario.trained_on_test]
        if trained:
            who = [policy for policy in policies if policy in trained]
            whose = f"{', '.join(who)}: " if len(who) < len(policies) else ""
            print(f"\n{whose}{TRAINED_ON_TEST}")
        for first, *others in self.warnings():
            more = f" ({len(others)} more like it: {FILES[-1]})" if others else ""
            print(f"warning: {first}{more}", file=sys.stderr)

    def _best(self) -> list[Row]:
        """Per place the two policies of highest attainment, and whether they are told apart."""
        best = []
        for (panel, x_name, x), policies in self.samples("slo_attainment").items():
            if len(policies) > 1:
                first, second = sorted(policies, key=lambda p: -sum(policies[p]))[:2]
                found = self._difference(policies, first, second, of_all=True)
                best.append(
                    {"panel": panel, "where": f"{x_name}={render(x)}"}
                    | {"best": first, "next": second}
                    | {name: 100 * found[name] for name in ("difference", "low", "high")}
                    | {"verdict": found["verdict"]}
                )
        return best
