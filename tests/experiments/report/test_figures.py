"""What the figures show, and that they are drawn from the tables alone."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.colors import same_color, to_hex

from beta_jax import MissReason, load_profile
from experiments.paper import sec6_3
from experiments.paper.sec6_3 import PANELS
from experiments.report import figures, tables
from experiments.tools import plan_figures, selfcheck, service_figures

POLICIES = ("mp-equal-16-1", "mp-equal-8-2", "mp-equal-4-4", "mp-equal-2-8", "mp-search")
X_NAMES = {"rate": "rate_rps", "cv": "cv", "slo": "slo_scale"}
SWEPT = {"rate": (0.5, 2.0, 8.0), "cv": (1.0, 2.0, 4.0), "slo": (0.5, 2.0, 8.0)}


def attainment(panel: str, x: float, policy: str) -> float:
    """Beta reaches 99 % up to x = 2 (from x = 2 for the SLO), the others at the easiest x only."""
    rank = SWEPT[panel].index(x) if panel != "slo" else 2 - SWEPT[panel].index(x)
    if policy == "mp-search":
        return (1.0, 0.995, 0.9)[rank]
    return (0.99, 0.8, 0.7)[rank] - (0.1 if policy == "mp-equal-2-8" else 0.0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    points = [
        {"panel": panel, "x": x, "policy": policy, "slo_attainment": attainment(panel, x, policy)}
        | {"x_name": X_NAMES[panel], "replication": 0}
        | {"latency_mean_s": 1.5, "trained_on_test": False}
        for panel, values in SWEPT.items()
        for x in reversed(values)
        for policy in POLICIES
    ]
    path = tmp_path / "table.csv"
    path.write_text(tables.to_csv(points))
    return path


@pytest.fixture
def drawn(monkeypatch):
    """The figures as matplotlib objects, instead of files."""
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, stem: kept.append(figure) or [])
    return kept


def read(table: Path) -> list[tables.Row]:
    return tables.read_csv(table, figures.COLUMNS)


@pytest.fixture
def figure(table):
    return figures.curves_figure(read(table), PANELS)


def test_one_panel_per_sweep_one_curve_per_policy_with_the_numbers_of_the_table(figure):
    assert len(figure.axes) == 3
    for axes, panel in zip(figure.axes, SWEPT, strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) == 3]
        for line, policy in zip(curves, POLICIES, strict=True):
            assert tuple(line.get_xdata()) == SWEPT[panel]
            expected = [100 * attainment(panel, x, policy) for x in SWEPT[panel]]
            assert list(line.get_ydata()) == pytest.approx(expected)


def test_curves_have_the_names_of_the_paper_and_differ_in_colour_and_marker(figure):
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["(16,1)", "(8,2)", "(4,4)", "(2,8)", "Beta"]
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len({to_hex(line.get_color()) for line in curves}) == 5
    assert len({line.get_marker() for line in curves}) == 5


def test_a_line_says_which_policies_figures_call_otherwise_than_tables():
    policies = ["sr-replace-60", "mp-equal-4-4", "mp-equal-2-8", "mp-search-within-500", "mine"]
    assert figures.legend(policies) == (
        "In figures Clockwork++ is sr-replace-60, (<pp>,<op>) is mp-equal-<pp>-<op>, "
        "Beta is mp-search-within-500."
    )
    assert figures.legend(["mp-search"], {"mp-search": "Ours"}) == "In figures Ours is mp-search."
    assert figures.legend(["mine"]) == ""
    assert figures.display_name("local-search-500") == "Local search (500 simulations)"


def test_axes_have_labels_units_and_the_published_range(figure):
    assert figure.axes[0].get_ylabel() == "SLO attainment (%)"
    assert "requests/s" in figure.axes[0].get_xlabel()
    assert [axes.get_ylim()[0] for axes in figure.axes] == [60, 60, 0]


def test_dotted_lines_mark_where_99_percent_is_first_reached(figure):
    for axes, easiest, beta in zip(figure.axes, (0.5, 1.0, 8.0), (2.0, 2.0, 2.0), strict=True):
        marks = {to_hex(m.get_color()): m for m in axes.lines if len(m.get_xdata()) == 2}
        assert len(marks) == 4  # (2,8) never gets there
        for colour, mark in marks.items():
            assert mark.get_linestyle() == "--"
            expected = beta if same_color(colour, figures.BETA_COLOUR) else easiest
            assert list(mark.get_xdata()) == [expected, expected]


def test_dotted_lines_are_explained_only_where_there_are_some(table):
    rows = [row for row in read(table) if row["policy"] == "mp-equal-2-8"]
    figure = figures.curves_figure(rows, PANELS)
    assert figure.get_supxlabel() == ""
    assert not any(len(line.get_xdata()) == 2 for axes in figure.axes for line in axes.lines)


def test_the_legend_covers_no_panel(figure):
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_no_data_is_cut_off_and_panels_without_rows_are_left_out(table):
    kept = [r for r in read(table) if r["panel"] == "rate"]
    kept[0]["slo_attainment"] = 0.55
    (axes,) = figures.curves_figure(kept, PANELS).axes
    assert axes.get_ylim()[0] == 0


def test_replications_become_a_mean_with_its_band_and_the_figure_says_how_many(table):
    shifts = (-0.02, 0.0, 0.02)
    rows = [
        row | {"slo_attainment": 0.8 + shift, "replication": replication}
        for row in read(table)
        for replication, shift in enumerate(shifts)
        if row["policy"] == "mp-equal-8-2"
    ]
    figure = figures.curves_figure(rows, PANELS)
    for axes in figure.axes:
        (curve,) = (line for line in axes.lines if len(line.get_xdata()) == 3)
        assert list(curve.get_ydata()) == pytest.approx([80.0] * 3)
        (band,) = axes.collections
        edges = band.get_paths()[0].vertices[:, 1]
        half = 4.302653 * 2 / 3**0.5  # t of 2 degrees of freedom, standard deviation 2
        assert (edges.min(), edges.max()) == pytest.approx((80 - half, 80 + half))
    assert "95 % intervals of the mean of 3 seeds" in figure.get_supxlabel()


def test_one_seed_has_no_band(figure):
    assert not any(axes.collections for axes in figure.axes)
    assert figure.get_supxlabel() == "dotted: where a policy reaches 99 %"


def test_points_of_one_replication_at_one_place_are_drawn_as_their_mean(table):
    rows = [row for row in read(table) if row["policy"] == "mp-search"]
    other = [row | {"slo_attainment": row["slo_attainment"] - 0.2} for row in rows]
    figure = figures.curves_figure([*rows, *other], PANELS)
    for axes, panel in zip(figure.axes, SWEPT, strict=True):
        (curve,) = (line for line in axes.lines if len(line.get_xdata()) == 3)
        expected = [100 * attainment(panel, x, "mp-search") - 10 for x in SWEPT[panel]]
        assert list(curve.get_ydata()) == pytest.approx(expected)
    assert not any(axes.collections for axes in figure.axes)


def test_the_figure_says_what_was_trained_on_the_test_traffic(table):
    rows = [row | {"trained_on_test": True} for row in read(table)]
    figure = figures.curves_figure(rows, PANELS)
    assert figure.get_supxlabel().endswith("; trained on the test traffic")


def test_many_panels_wrap_and_none_is_empty(table):
    panels = [figures.Panel(f"p{i}", "x", title=f"p{i}") for i in range(6)]
    rows = [row | {"panel": panel.name} for panel in panels for row in read(table)]
    figure = figures.curves_figure(rows, panels, figures.LATENCY)
    assert [axes.get_title() for axes in figure.axes] == [f"p{i}" for i in range(6)]
    assert figure.axes[0].get_ylabel() == figure.axes[4].get_ylabel() == "Mean latency (s)"
    assert {y for line in figure.axes[0].lines for y in line.get_ydata()} == {1.5}


def test_equal_tables_make_equal_files(table):
    paths = sec6_3.EXPERIMENT.draw(table.parent)
    assert [path.suffix for path in paths] == [".pdf", ".png", ".svg"]
    assert {path.stem for path in paths} == {"large_model_exp"}
    first = [path.read_bytes() for path in paths]
    assert first[0].startswith(b"%PDF") and first[1].startswith(b"\x89PNG")
    assert b"SLO attainment" in first[2]  # letters, not outlines
    sec6_3.EXPERIMENT.draw(table.parent)
    assert [path.read_bytes() for path in paths] == first


def test_a_share_of_requests_is_told_with_an_interval_that_is_possible():
    row = {"x_name": "cv", "x": 1.0, "slo_attainment": 0.9}
    rows = [
        row | {"policy": "even", "slo_attainment_low": 0.85, "slo_attainment_high": 0.95},
        row | {"policy": "cut", "slo_attainment_low": 0.4, "slo_attainment_high": 1.0},
        row | {"policy": "once", "slo_attainment_low": math.nan, "slo_attainment_high": math.nan},
    ]
    [line] = tables.pivot(rows)
    assert line == {"cv": 1.0, "even": "90 +-5", "cut": "90 (40 to 100)", "once": 90.0}


def test_figure_12_says_what_its_pairs_and_its_slos_are(table):
    rows = read(table)
    assert sec6_3.notes(rows) == [sec6_3.SPLITS]
    assert sec6_3.notes([row for row in rows if row["policy"] == "mp-search"]) == []
    shipped = {"model_types": "bert-103.5b,bert-103.5b", "profile": "data/profiles/v100.json"}
    latency_s = load_profile("v100").single_device_latency_s("bert-103.5b")
    assert f"SLO scale 1: {latency_s:g} s" in sec6_3.notes([row | shipped for row in rows])[1]


def test_drawing_needs_neither_jax_nor_pyplot(table):
    check = (
        "import sys; from pathlib import Path; from experiments.paper import sec6_3;"
        f"sec6_3.EXPERIMENT.draw(Path({str(table.parent)!r}));"
        "print(*sorted({'jax', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    root = Path(figures.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
    assert (table.parent / "large_model_exp.png").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no column panel"),
        (
            "panel,x_name,x,policy,latency_mean_s,trained_on_test\n",
            "no column replication, slo_att",
        ),
        (f"{','.join(figures.COLUMNS)}\n", "no rows"),
    ],
)
def test_a_broken_table_is_named_with_what_it_lacks(content, expected, table):
    table.write_text(content)
    with pytest.raises(tables.ResultsError, match=f"table.csv has {expected}"):
        sec6_3.EXPERIMENT.draw(table.parent)


def test_a_table_with_a_word_for_a_number_is_named(table):
    table.write_text(table.read_text().replace(",0.5,", ",half,"))
    with pytest.raises(tables.ResultsError, match=r"table.csv: could not convert .* 'half'"):
        sec6_3.EXPERIMENT.draw(table.parent)


def test_a_service_shows_every_model_and_what_is_never_answered(tmp_path, drawn):
    models, latencies = tmp_path / "models.csv", tmp_path / "latencies.csv"
    served = [
        ("local-search", "m0", 1.0),
        ("local-search", "m1", 0.5),
        ("sr", "m0", 0.75),
        ("sr", "m1", "nan"),
    ]
    keys = ("placement", "model", "slo_attainment", "trained_on_test")
    rows = [dict(zip(keys, (*row, True), strict=True)) for row in served]
    models.write_text(tables.to_csv(rows))
    reached = [
        ("local-search", 0.1, 0.0),
        ("local-search", 0.4, 0.75),
        ("sr", 0.2, 0.0),
        ("sr", 0.3, 0.5),
    ]
    keys = ("placement", "latency_s", "answered")
    latencies.write_text(tables.to_csv([dict(zip(keys, row, strict=True)) for row in reached]))
    service_figures.draw_service(models, latencies, tmp_path / "service")
    bars, curves = drawn[0].axes
    assert [bar.get_width() for bar in bars.patches[:3]] == [100, 50, 75]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["m0", "m1"]
    assert [max(line.get_ydata()) for line in curves.lines] == [75, 50]
    assert drawn[0].get_supxlabel() == "trained on the test traffic"


def test_misses_are_bars_of_the_reasons_per_model(tmp_path, drawn):
    table = tmp_path / "misses.csv"
    assert [*service_figures.REASONS] == [reason.name.lower() for reason in MissReason]
    none = dict.fromkeys(service_figures.REASONS, 0)
    rows = [
        {"placement": "a", "model": "m0", "group": 0, **none, "behind_own": 3},
        {"placement": "a", "model": "m0", "group": 1, **none, "behind_own": 1, "failed": 2},
        {"placement": "b", "model": "m1", "group": "", **none, "no_replica": 5},
    ]
    table.write_text(tables.to_csv(rows))
    service_figures.draw_misses(table, tmp_path / "misses")
    first, second = drawn[0].axes
    assert [bar.get_width() for bar in first.patches] == [4, 0, 2, 0]
    assert [bar.get_width() for bar in second.patches] == [0, 5]
    assert [label.get_text() for label in first.get_yticklabels()] == ["m0", "m1"]
    shown = {text.get_text() for text in drawn[0].legends[0].get_texts()}
    assert shown == {"behind its own model", "failed", "no replica"}


def test_utilisation_has_a_row_per_group_and_gaps_where_there_is_none(tmp_path, drawn):
    table = tmp_path / "utilisation.csv"
    keys = ("placement", "group", "from_s", "to_s", "utilisation")
    busy = {"local-search": [[0.5, 1.0]], "sr": [[0.25, 0.0], [float("nan"), 0.75]]}
    rows = [
        dict(zip(keys, (name, group, 10 * i, 10 * i + 10, share), strict=True))
        for name, groups in busy.items()
        for group, shares in enumerate(groups)
        for i, share in enumerate(shares)
    ]
    table.write_text(tables.to_csv(rows))
    service_figures.draw_utilisation(table, tmp_path / "utilisation")
    upper, lower, bar = drawn[0].axes
    assert (upper.get_title(), lower.get_title()) == ("local-search", "sr")
    assert upper.collections[0].get_array().ravel().tolist() == [50, 100]
    shown = lower.collections[0].get_array()
    assert shown.shape == (2, 2) and shown.mask.tolist() == [[False, False], [True, False]]
    assert lower.get_xlabel() == "Time (s)" and bar.get_ylabel() == "Utilisation (%)"
    assert lower.get_ylim()[0] > lower.get_ylim()[1]  # group 0 on top


def test_a_history_climbs_in_steps_over_the_simulations(tmp_path, drawn):
    table = tmp_path / "history.csv"
    keys = ("policy", "num_simulations", "best_score")
    values = [
        ("local-search", 1, 0.999),
        ("local-search", 128, 0.9995),
        ("local-search", 1000, 0.9995),
    ]
    table.write_text(tables.to_csv([dict(zip(keys, row, strict=True)) for row in values]))
    plan_figures.draw_history(table, tmp_path / "history")
    (axes,) = drawn[0].axes
    (curve,) = axes.lines
    assert (list(curve.get_xdata()), curve.get_drawstyle()) == ([1, 128, 1000], "steps-post")
    assert list(curve.get_ydata()) == pytest.approx([99.9, 99.95, 99.95])
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "Simulations"
    low, high = axes.get_ylim()
    assert high - low >= 1  # a small gain looks small


def test_scores_beyond_the_limit_stand_out_and_stay_inside(tmp_path, drawn):
    table = tmp_path / "selfcheck.csv"
    keys = ("case", "quantity", "difference_in_se", "verdict")
    values = [("a", "q", 1.0, "pass"), ("b", "q", float("inf"), "FAIL"), ("c", "q", None, "pass")]
    table.write_text(tables.to_csv([dict(zip(keys, row, strict=True)) for row in values]))
    selfcheck.TASK.draw(tmp_path)
    (axes,) = drawn[0].axes
    marks = [line for line in axes.lines if line.get_marker() in ("o", "X")]
    assert [(line.get_marker(), *line.get_xdata()) for line in marks] == [("o", 1.0), ("X", 6.0)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a: q", "b: q"]


def test_tables_keep_full_precision_and_line_up():
    rows = [{"name": "a", "x": 1 / 3}, {"name": "long", "x": float("nan")}]
    assert tables.to_csv(rows) == "name,x\na,0.3333333333333333\nlong,nan\n"
    assert tables.to_text(rows) == "name       x\na     0.3333\nlong       -"
