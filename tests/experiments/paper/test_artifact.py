"""The artifact as a whole: sections in turn, whatever ends a run, and claims read off tables."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run
from configs import paper
from experiments.paper.artifact import Section, choose, claims, sections
from experiments.paper.artifact.claims import CLAIMS, NO, PART, UNKNOWN, YES
from experiments.report import tables

import documents

SCRIPT = "tests/experiments/paper/a_section.py"


def section(name: str, *options: str, recorded_s: float = 1.0) -> Section:
    """Of the script, which is told its name and these options."""
    return Section(
        name=name,
        shows="nothing",
        config=SCRIPT,
        options=lambda _: [name, *options],
        writes="table.csv",
        files=("table.csv", "began"),
        recorded_s=recorded_s,
    )


CONFIG = dataclasses.replace(paper.CONFIG, sections=("first", "second"))


def begun(directory: Path, name: str) -> int:
    """How often a section was begun."""
    path = directory / name / "began"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_sections_run_once_the_shortest_first(tmp_path: Path, capsys):
    both = [section("second", recorded_s=2), section("first")]
    progress = sections.run(both, CONFIG, tmp_path)
    printed = capsys.readouterr().out
    assert printed.index(f"{SCRIPT} first") < printed.index(f"{SCRIPT} second")
    assert sections.run(both, CONFIG, tmp_path).sections == progress.sections
    assert "2 of 2 sections are finished" in capsys.readouterr().out
    assert (begun(tmp_path, "first"), begun(tmp_path, "second")) == (1, 1)
    used = progress.usage("first")
    assert used.attempts == 1 and used.seconds > 0 and used.peak_bytes > 2**20
    # Another command of the same section is run.
    sections.run([section("first", "other")], CONFIG, tmp_path)
    assert (begun(tmp_path, "first"), begun(tmp_path, "second")) == (2, 1)


def test_a_section_that_fails_says_so_and_is_run_again(tmp_path: Path):
    both = [section("first"), section("second", "fail", recorded_s=2)]
    for attempts in (1, 2):
        with pytest.raises(sections.SectionError, match="section second ended with exit code 3"):
            sections.run(both, CONFIG, tmp_path)
        assert (begun(tmp_path, "first"), begun(tmp_path, "second")) == (1, attempts)
    assert sections.Progress.read(tmp_path).usage("second").attempts == 2


DRIVER = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as run.py has it
sys.path[:0] = ["tests/experiments/paper", "tests"]
import test_artifact
both = [test_artifact.section("first"), test_artifact.section("second", "wait", recorded_s=2)]
test_artifact.sections.run(both, test_artifact.CONFIG, pathlib.Path(sys.argv[1]))
"""


def alive(directory: Path) -> list[int]:
    """Processes of the script that write there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode()
        except OSError:
            continue
        if "a_section.py" in line and str(directory) in line:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed run leaves its section")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_whatever_ends_a_run_ends_its_section_and_the_next_run_goes_on(ending, tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], cwd=documents.ROOT, stderr=subprocess.PIPE
    )
    while not begun(tmp_path, "second"):
        assert process.poll() is None, process.stderr
        time.sleep(0.02)
    process.send_signal(ending)
    process.communicate()
    while alive(tmp_path):
        time.sleep(0.02)
    (tmp_path / "second" / "go").touch()
    both = [section("first"), section("second", "wait", recorded_s=2)]
    sections.run(both, CONFIG, tmp_path)
    assert (begun(tmp_path, "first"), begun(tmp_path, "second")) == (1, 2)


def test_a_config_names_its_sections():
    known = [section("first"), dataclasses.replace(section("second"), needs="published")]
    assert [s.name for s in choose(known, CONFIG)] == ["first"]
    given = dataclasses.replace(CONFIG, published="folder")
    assert [s.name for s in choose(known, given)] == ["first", "second"]
    with pytest.raises(ValueError, match="no section is called 'third'; there are first, second"):
        choose(known, dataclasses.replace(CONFIG, sections=("third",)))
    with pytest.raises(ValueError, match="sections is empty"):
        dataclasses.replace(CONFIG, sections=())


def execute(out_dir: Path, *arguments: str) -> int:
    argv = ["run.py", "--config", "paper:smoke", f"--out_dir={out_dir}", *arguments]
    return run.main(argv, time.perf_counter())


def test_a_run_ends_in_the_table_and_leaves_nothing_behind(tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert execute(out, "--config.sections=profiling") == 0
    printed = capsys.readouterr().out
    assert (
        "python run.py --config sec3:smoke --config.groups=" in printed
        and "claims agree" in printed
    )
    found = {row["claim"]: row for row in rows(out / "claims.csv")}
    assert found["latency of a model on its own"]["agrees"] == YES
    assert found["weights of a model"]["agrees"] == PART and found["weights of a model"]["why"]
    assert {row["agrees"] for row in found.values() if row["section"] != "profiling"} == {UNKNOWN}
    [line] = rows(out / "sections.csv")
    assert float(line["seconds"]) > 0 and float(line["peak_gib"]) > 0
    report = (out / "report.html").read_text()
    assert '<a href="profiling/report.html">' in report
    assert (out / line["report"]).is_file() and "scaling" in (out / line["report"]).read_text()
    given = f"--config.published={tmp_path}"  # a folder that is no trace
    assert execute(out, "--config.sections=profiling", given, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert [*summary["tables"]] == ["sections.csv", "claims.csv"]
    assert "profiling/scaling.csv" in summary["files"]
    assert execute(out, "--clean") == 0
    assert not out.exists()


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# Claims.


def test_the_page_has_every_section_and_every_claim():
    """What docs/paper.md shows was recorded, and its words are those of the code."""
    page = (documents.ROOT / "docs" / "paper.md").read_text()
    for one in paper.SECTIONS:
        assert f"| `{one.name}`: {one.shows} |" in page
    for claim in CLAIMS:
        assert f"| {claim.section} | {claim.claim} | {claim.published} |" in page
    assert {claim.section for claim in CLAIMS} == {one.name for one in paper.SECTIONS}


def judge(tmp_path: Path, section: str, claim: str, **written: list[dict]) -> tuple[str, str]:
    """What is found and whether it agrees, from these tables."""
    (tmp_path / section).mkdir(exist_ok=True)
    for name, lines in written.items():
        (tmp_path / section / f"{name}.csv").write_text(tables.to_csv(lines))
    others = [c for c in CLAIMS if c.section == section and c.claim.startswith(claim)]
    assert len(others) == 1
    finding = others[0].judge(claims.Tables(tmp_path / section))
    return finding.found, finding.agrees


def curve(panel: str, **policies: list[float]) -> list[dict]:
    """Rows of a table: SLO attainment of each policy at x = 1, 2, ..."""
    return [
        {"panel": panel, "x": float(x), "policy": name.replace("_", "-"), "slo_attainment": value}
        for name, values in policies.items()
        for x, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    "beta, agrees", [([0.9] * 10, YES), ([0.9] * 9 + [0.1], YES), ([0.9] * 8 + [0.1] * 2, PART)]
)
def test_nearly_everywhere_is_nine_of_ten(beta, agrees, tmp_path: Path):
    table = curve("S1@MAF1 num_devices", sr_greedy=[0.5] * 10, mp_search=beta)
    found, verdict = judge(tmp_path, "end_to_end", "Beta at or above SR", table=table)
    good = sum(value > 0.5 for value in beta)
    assert (found, verdict) == (f"{good} of 10 points", agrees)


@pytest.mark.parametrize(
    "factor, bound, agrees",
    [(2.4, "=", YES), (2.0, "=", PART), (2.4, ">=", YES), (0.9, "=", NO), (9.0, "<=", NO)],
)
def test_factors_are_held_to_the_published_ones(factor, bound, agrees, tmp_path: Path):
    line = {"panel": "S1@MAF1 num_devices", "x_name": "num_devices", "other": "sr-greedy"}
    headline = [line | {"bound": bound, "factor": factor}]
    found, verdict = judge(tmp_path, "end_to_end", "fewer devices", headline=headline)
    assert verdict == agrees
    assert ("S1@MAF1, over SR" in found) == (bound != "<=")


def test_shapes_of_curves(tmp_path: Path):
    slo = curve("S1@MAF1 slo_scale", sr_greedy=[0.1, 0.4, 0.9], mp_search=[0.1, 0.8, 0.95])
    cv = curve("S1@MAF1 cv_scale", sr_greedy=[0.9, 0.2], mp_search=[0.9, 0.5])
    table = {"table": slo + cv}
    for claim, words in {
        "Beta's lead is larger under": "0.0 points at the lowest CV, 30.0 points at the highest",
        "Beta's lead is largest at medium": "0.0 points at the tightest, 40.0 points at most, 5.0",
        "at very loose SLOs": "best to worst 5.0 points at the loosest, 40.0 points at most",
    }.items():
        found, agrees = judge(tmp_path, "end_to_end", claim, **table)
        assert agrees == YES and found.startswith(words)
    falling = curve("S1@MAF1 slo_scale", sr_greedy=[0.1, 0.1, 0.1], mp_search=[0.9, 0.8, 0.7])
    for claim in ("Beta's lead is largest at medium", "at very loose SLOs"):
        assert judge(tmp_path, "end_to_end", claim, table=falling)[1] == NO


def test_the_groups_of_beta_are_held_to_the_published_ones(tmp_path: Path):
    published, other = "2x(1,4,8)", "4x(1,2,8)"
    for layouts, verdict, words in (
        ([published] * 9 + [other], YES, "these at 9 of 10 points"),
        ([other] * 4 + [published] * 6, PART, "these at 6 of 10 points"),
        ([other] * 9 + [published], NO, "4 groups, each 8 pipeline stages x 2 operator-parallel"),
    ):
        rows = [{"policy": "mp-search", "placement": layout} for layout in layouts]
        rows.append({"policy": "mp-equal-8-2", "placement": other})
        found, agrees = judge(tmp_path, "large_models", "the groups", table=rows)
        assert found.startswith(words) and agrees == verdict


def test_published_curves_agree_where_every_point_is_equal(tmp_path: Path):
    row = {"published": 0.25, "placement": "a", "published_placement": "a"}
    for found, verdict in ((0.25, YES), (0.2501, NO)):
        table = [row | {"found": 0.25}, row | {"found": found}]
        words, agrees = judge(tmp_path, "published_curves", "points", table=table)
        assert agrees == verdict and words.endswith("2 placements have the same groups")
    assert words.startswith("1 of 2 equal, 0.01 points apart at most")


def test_a_section_that_was_scaled_down_has_no_finding(tmp_path: Path):
    (tmp_path / "end_to_end").mkdir()
    only = curve("S1@MAF1 num_devices", sr_greedy=[0.5], mp_search=[0.6])
    (tmp_path / "end_to_end" / "table.csv").write_text(tables.to_csv(only))
    headline = [{"panel": "S1@MAF1 num_devices", "x_name": "num_devices", "other": "sr-greedy"}]
    headline[0] |= {"bound": "=", "factor": 2.0}
    (tmp_path / "end_to_end" / "headline.csv").write_text(tables.to_csv(headline))
    found = claims.compare(tmp_path, ["end_to_end"])
    known = {row["claim"] for row in found if row["agrees"] != UNKNOWN}
    assert known == {"fewer devices at 99 %", "Beta at or above SR and Clockwork++"}
    assert len(claims.markdown([], found).strip().splitlines()) == 2 + len(known)


def test_a_published_ratio_agrees_within_its_digits_and_the_interval(tmp_path: Path):
    def table(low: float, high: float) -> list[dict]:
        of = {"case": "equal rates, Poisson", "policy": "mp-search", "ratio": (low + high) / 2}
        of |= {"ratio_low": low, "ratio_high": high}
        return [of | {"overheads": name} for name in ("off", "on")]

    claim = "pooling, equal rates, Poisson"
    assert judge(tmp_path, "motivation", claim, two_models=table(1.2, 1.26))[1] == YES
    assert judge(tmp_path, "motivation", claim, two_models=table(1.2, 1.24))[1] == NO
