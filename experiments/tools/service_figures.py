"""The figures of a report on a service, from its tables alone: never imports JAX."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from experiments.report import figures, tables
from experiments.report.figures import BETA_COLOUR, TRAINED_ON_TEST

FILES = (
    "summary.csv",
    "models.csv",
    "groups.csv",
    "latencies.csv",
    "misses.csv",
    "utilisation.csv",
    *figures.files_of("utilisation", "misses"),
)
"""What every report on a service consists of, besides its own figure."""
REASONS = {
    "no_replica": "no replica",
    "slo_too_short": "SLO too short",
    "unfit_group": "unfit group",
    "behind_own": "behind its own model",
    "behind_other": "behind other models",
    "failed": "failed",
}
"""Columns of misses.csv, and what the figure calls them."""
MOST_MODELS = 40
"""In the figure of misses: those with the most."""


def draw(directory: Path, name: str) -> list[Path]:
    """Draw `name`, `misses` if there are any, and `utilisation`; raises ResultsError, OSError."""
    return [
        *draw_service(directory / "models.csv", directory / "latencies.csv", directory / name),
        *draw_misses(directory / "misses.csv", directory / "misses"),
        *draw_utilisation(directory / "utilisation.csv", directory / "utilisation"),
    ]


def draw_service(models: Path, latencies: Path, stem: Path) -> list[Path]:
    """SLO attainment of each model, and how many of all requests are answered within a latency.

    models: CSV with placement, model, slo_attainment, trained_on_test.
    latencies: CSV with placement, latency_s, answered.
    Writes the files of the figure `stem`; raises ResultsError, OSError.
    """
    rows = tables.read_csv(
        models,
        {"placement": str, "model": str, "slo_attainment": float, "trained_on_test": tables.truth},
    )
    quantiles = tables.read_csv(
        latencies, {"placement": str, "latency_s": float, "answered": float}
    )
    names = list(dict.fromkeys(row["model"] for row in rows))
    placements = list(dict.fromkeys(row["placement"] for row in rows))
    with figures.style():
        figure = figures.new_figure(
            8.0, min(max(2.6, 0.24 * len(names) * len(placements) + 1.2), 40)
        )
        left, right = figure.subplots(1, 2)
        height = 0.8 / len(placements)
        for index, (placement, colour) in enumerate(figures.colours_of(placements).items()):
            shown = {r["model"]: r["slo_attainment"] for r in rows if r["placement"] == placement}
            left.barh(
                [i + (index - (len(placements) - 1) / 2) * height for i in range(len(names))],
                [100 * shown[name] for name in names],
                height,
                color=colour,
                label=placement,
            )
            own = [r for r in quantiles if r["placement"] == placement]
            right.plot(
                [r["latency_s"] for r in own],
                [100 * r["answered"] for r in own],
                color=colour,
                linestyle="-" if colour == BETA_COLOUR else "--",
            )
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        left.set(xlabel="SLO attainment (%)", xlim=(0, 100))
        right.set(xlabel="Latency (s)", ylabel="Requests answered within it (%)", ylim=(0, 101))
        right.set_xlim(left=0)
        figure.legend(loc="outside upper center", ncols=len(placements), frameon=False)
        figures.add_note(figure, [TRAINED_ON_TEST] if rows[0]["trained_on_test"] else [])
        return figures.save(figure, stem)


def draw_misses(table: Path, stem: Path) -> list[Path]:
    """Why requests of each model missed their SLO: a panel per placement, a bar per model.

    table: CSV with placement, model and a column per reason, rows of several groups added up.
    Writes the files of the figure `stem`, or removes them where no request missed its SLO; raises
    ResultsError, OSError.
    """
    if not tables.read_values(table):
        for name in figures.files_of(stem.name):
            stem.with_name(name).unlink(missing_ok=True)
        return []
    rows = tables.read_csv(table, {"placement": str, "model": str, **dict.fromkeys(REASONS, int)})
    missed: dict[str, Counter[tuple[str, str]]] = {}
    by_model = Counter[str]()
    for row in rows:
        own = missed.setdefault(row["placement"], Counter())
        for reason in REASONS:
            own[row["model"], reason] += row[reason]
            by_model[row["model"]] += row[reason]
    worst = {model for model, _ in by_model.most_common(MOST_MODELS)}
    models = [model for model in by_model if model in worst]
    colours = dict(zip(REASONS, (*figures.COLOURS[:5], figures.BETA_COLOUR), strict=True))
    columns = min(len(missed), 2)
    lines = -(-len(missed) // columns)
    with figures.style():
        figure = figures.new_figure(8.0, lines * (0.2 * len(models) + 0.9) + 0.4)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(missed) :]:
            axes.remove()
        for axes, (placement, own) in zip(grid.flat, missed.items(), strict=False):
            left = [0] * len(models)
            for reason, shown in REASONS.items():
                counts = [own[model, reason] for model in models]
                if any(counts):
                    axes.barh(models, counts, 0.7, left=left, color=colours[reason], label=shown)
                left = [a + b for a, b in zip(left, counts, strict=True)]
            axes.set_title(placement if len(missed) > 1 else "", fontsize="medium")
            axes.set_xlabel("Requests that missed their SLO")
        grid[0, 0].invert_yaxis()
        figures.legend_above(figure)
        more = len(by_model) - len(models)
        figures.add_note(figure, [f"{more} models with fewer misses are left out"] if more else [])
        return figures.save(figure, stem)


def draw_utilisation(table: Path, stem: Path) -> list[Path]:
    """How busy every group is over time, as colours: a panel per placement, a row per group.

    table: CSV with placement, group, from_s, to_s, utilisation (NaN where there is no such group).
    Writes the files of the figure `stem`; raises ResultsError, OSError.
    """
    rows = tables.read_csv(
        table,
        {"placement": str, "group": int, "from_s": float, "to_s": float, "utilisation": float},
    )
    placements = list(dict.fromkeys(row["placement"] for row in rows))
    own = {name: [row for row in rows if row["placement"] == name] for name in placements}
    heights = [len({row["group"] for row in own[name]}) for name in placements]
    with figures.style():
        inches = [min(max(0.22 * height, 0.5), 8.0) for height in heights]
        figure = figures.new_figure(8.0, sum(inches) + 0.65 * len(placements) + 0.5)
        grid = figure.subplots(len(placements), 1, squeeze=False, height_ratios=inches)
        for axes, name, height in zip(grid[:, 0], placements, heights, strict=True):
            values = [100 * row["utilisation"] for row in own[name]]
            width = len(values) // height
            image = axes.pcolormesh(
                [row["from_s"] for row in own[name][:width]] + [own[name][width - 1]["to_s"]],
                [group - 0.5 for group in range(height + 1)],
                [values[i * width : (i + 1) * width] for i in range(height)],
                cmap="viridis",
                vmin=0,
                vmax=100,
                rasterized=True,
            )
            axes.invert_yaxis()
            axes.set(ylabel="Group", title=name if len(placements) > 1 else "")
            axes.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        grid[-1, 0].set_xlabel("Time (s)")
        figure.colorbar(image, ax=grid, label="Utilisation (%)", aspect=15)
        return figures.save(figure, stem)
