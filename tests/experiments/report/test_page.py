"""The report of a run: whole, valid, harmless whatever stands in it, and usable in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import run
from configs import sec6_3
from experiments.engine import fields
from experiments.report import page, tables

HOSTILE = "</script><script>alert('&')</script><!--"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ROWS = [
    {"panel": "rate", "x_name": "rate_rps", "x": x, "policy": policy, "replication": 0}
    | {"slo_attainment": value, "latency_mean_s": 1.5, "trained_on_test": False}
    | {"num": num, "met": num != 1, "limit": float("inf"), "note": HOSTILE}
    for num, (x, policy, value) in enumerate(
        [(1.0, "mp-search", 1 / 3), (2.0, "mp-search", float("nan")), (10.0, "sr-greedy", 0.25)]
    )
]


def call(folder: Path, *arguments: str) -> int:
    argv = ["run.py", "--config=sec6_3", f"--out_dir={folder}", *arguments]
    return run.main(argv, time.perf_counter())


def write(folder: Path, rows: list[tables.Row]) -> Path:
    """What a run of sec6_3 leaves there."""
    folder.mkdir(exist_ok=True)
    (folder / "table.csv").write_text(tables.to_csv(rows))
    record = {"config_name": "sec6_3", "argv": ["run.py", HOSTILE], "platform": HOSTILE}
    config = {"config.rates": "2", "config.models": HOSTILE}
    (folder / "run.json").write_text(json.dumps(record | {"config": config}))
    (folder / "timings.json").write_text(json.dumps({"import": 1.0, "place": 3.0}))
    log = f"attainment\nwarning: {HOSTILE}\nwarning: again\nwarning: again\n"
    log = f"3 results to compute, 0 are stored\n{log}"
    (folder / "log.txt").write_text(log)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = write(tmp_path_factory.mktemp("run"), ROWS)
    assert call(path, "--plot_only") == 0
    return path


@pytest.fixture
def text(folder) -> str:
    return (folder / "report.html").read_text()


class Elements(HTMLParser):
    """Every element's name and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_it_is_valid(text):
    html5lib.HTMLParser(strict=True).parse(text)
    ids = [of["id"] for _, of in Elements(text).found if "id" in of]
    assert len(ids) == len(set(ids))
    links = {of["href"] for tag, of in Elements(text).found if tag == "a"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_it_needs_nothing_else(text, folder):
    found = Elements(text).found
    assert not {tag for tag, _ in found} & {"link", "iframe", "object", "base", "form"}
    assert [of for tag, of in found if tag == "script"] == [{}]
    sources = [of["src"] for _, of in found if "src" in of]
    assert len(sources) == 1 and sources[0].startswith("data:image/svg+xml;base64,")
    assert not re.search("(src|href)=.?(https?:)?//|url\\(|@import", text)
    for link in (of["href"] for tag, of in found if tag == "a"):
        assert link.startswith("#") or (folder / link).is_file()


def test_it_shows_what_is_in_the_folder(text):
    for shown in (
        "large_model_exp.svg",
        "Every point and replication",
        ">0.33333<",
        "3.00 s",
        "75.0%",
    ):
        assert shown in text
    assert 'data-v="0.3333333333333333"' in text
    assert text.count("<li>again</li>") == 1
    assert f"instead of {fields.render(sec6_3.CONFIG.rates)}<" in text
    assert "<td>inf</td>" in text  # of a column that says the same in every row


def test_the_summary_is_of_what_was_found_and_not_of_progress(text):
    assert "attainment\n" in text and "results to compute" not in text


@pytest.mark.parametrize(
    ("file", "row", "title"),
    [
        ("intervals.csv", {"seeds": 1, "low": None}, "Means"),
        ("intervals.csv", {"seeds": 2, "low": 0.5}, "Means and their 95 % intervals"),
        ("differences.csv", {"seeds": 2}, "Differences between policies, paired by traffic"),
        ("table.csv", {"replication": 0}, "Every point and replication"),
        ("table.csv", {"measured_mean_s": 1.0}, "Means, measured and simulated, and how far apart"),
        ("errors.csv", {"steps": "decode"}, "Model against measured steps"),
        ("errors.csv", {"type": "bert-1.3b"}, "Model against measured rows"),
    ],
)
def test_titles_say_what_tables_have(file, row, title):
    assert page.show(file, [row, row]).title.startswith(title)
    assert (page.show(file, [row]).title == "Means") == (title == "Means")


def test_whatever_stands_in_a_file_is_text(text):
    escaped = html.escape(HOSTILE).replace("&#x27;", "&#39;")
    assert HOSTILE not in text
    assert text.count(escaped) >= 5  # command, config, environment, warning, log, table


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00")))
def test_any_text_is_shown_as_it_is(word):
    own = page.Setting(word, word, word, word)
    made = page.Run(
        **{"name": word, "about": word, "directory": Path(), "files": [word], "figures": []},
        **{"command": word, "settings": [own], "environment": {word: [word]}},
        **{"timings_s": {word: 0.0}, "printed": f"warning: {word}"},
    )
    found = Elements(page.render(made)).found
    assert [tag for tag, _ in found if tag in ("script", "style")] == ["style", "script"]
    assert found[-1] == ("script", {})


def test_a_table_too_large_is_cut_and_the_page_stays_small(tmp_path):
    rows = [row | {"num": n, "x": float(n)} for row in ROWS for n in range(10_000)]
    path = write(tmp_path / "out", rows)
    (path / "log.txt").unlink()
    made = page.Run(
        **{"name": "x", "about": "", "directory": path, "files": ["table.csv"], "figures": []},
        **{"command": "", "settings": [], "environment": {}, "timings_s": {}, "printed": ""},
    )
    text = page.render(made)
    assert "30000 rows; the first 300 are shown" in text and len(text) < 1e6


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "", "-2"], [1, None, -2]),
        (["1", "2.5", "nan", "inf", "1e-3"], [1.0, 2.5, None, float("inf"), 0.001]),
        (["True", "", "False"], [True, None, False]),
        (["1", "two"], ["1", "two"]),
        (["1_0", "2"], ["1_0", "2"]),
        (["True", "1"], ["True", "1"]),
    ],
)
def test_a_column_is_what_all_its_cells_are(texts, values, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(tables.to_csv([{"a": text, "b": "x"} for text in texts]))
    read = [row["a"] for row in tables.read_values(path)]
    assert read == values and [*map(type, read)] == [*map(type, values)]


def test_a_table_without_rows_and_one_that_is_none(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n")
    assert tables.read_values(path) == []
    path.write_text("a,b\n1\n")
    with pytest.raises(tables.ResultsError, match=r"table\.csv: "):
        tables.read_values(path)


def test_a_figure_too_large_is_shown_as_a_raster_image_or_linked(tmp_path, monkeypatch):
    for kind, size in {"svg": 5000, "png": 1000}.items():
        (tmp_path / f"a.{kind}").write_bytes(b"x" * size)
    made = page.Run(
        **{"name": "x", "about": "", "directory": tmp_path, "files": [], "figures": ["a", "a"]},
        **{"command": "", "settings": [], "environment": {}, "timings_s": {}, "printed": ""},
    )
    monkeypatch.setattr(page, "MAX_FIGURES_BYTES", 1500)
    text = page.render(made)
    assert text.count("data:image/png") == 1 and "svg+xml" not in text
    assert text.count("is too large to be shown here") == 1


def test_it_comes_with_the_figures_alone(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "table.csv").write_text(tables.to_csv(ROWS))
    assert call(path, "--plot_only") == 0
    html5lib.HTMLParser(strict=True).parse((path / "report.html").read_text())
    assert "No run has ended in this folder" in (path / "report.html").read_text()
    assert call(path, "--clean") == 0
    assert not path.exists()


def test_a_damaged_record_is_named(tmp_path, capsys):
    path = write(tmp_path / "out", ROWS)
    (path / "timings.json").write_text("{")
    assert call(path, "--plot_only") == 1
    assert capsys.readouterr().err.startswith(f"error: {path}/timings.json: ")


def test_json_is_a_summary_and_alone_on_stdout(folder, capsys):
    capsys.readouterr()
    assert call(folder, "--plot_only", "--json") == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["config"] == {"rates": "2", "models": HOSTILE}
    assert summary["warnings"] == [HOSTILE, "again"]
    assert summary["timings_s"] == {"import": 1.0, "place": 3.0}
    for name in summary["files"]:
        assert (folder / name).is_file()
    assert {"report.html", "large_model_exp.svg", "table.csv"} <= set(summary["files"])
    first, second, _ = summary["tables"]["table.csv"]["rows"]
    assert first["slo_attainment"] == 1 / 3 and second["slo_attainment"] is None
    assert (first["x"], first["num"], first["limit"]) == (1.0, 0, "inf")
    assert first["trained_on_test"] is False
    assert "report.html" in err and "draw" in err


@pytest.mark.slow
def test_a_run_keeps_what_it_printed(tmp_path):
    arguments = ["--config.rates=2", "--config.cvs=", "--config.slo_scales="]
    arguments += ["--config.duration_s=60", "--config.policies=mp-equal-4-4", "--json"]
    command = [sys.executable, "run.py", "--config=sec6_3", f"--out_dir={tmp_path}", *arguments]
    root = Path(run.__file__).parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["config"]["duration_s"] == "60" and summary["timings_s"]["draw"] > 0
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("SLO attainment (%)") and done.stderr.startswith(log)
    text = (tmp_path / "report.html").read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    assert html.escape(log.splitlines()[-1]) in text


PROBE = """
<!DOCTYPE html><title>probe</title><iframe style="width: 400px; height: 800px"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const button = [...page.querySelectorAll("th button")].find((b) => b.textContent === "PRESSED");
  const column = button.parentElement.cellIndex, body = button.closest("table").tBodies[0];
  const values = () => [...body.rows].map((row) => row.cells[column].textContent).join();
  const found = [root.scrollWidth, page.images[0].naturalWidth > 0, values()];
  button.click(); found.push(values());
  button.click(); found.push(values());
  document.title = "found " + found.join(" | ");
};
frame.srcdoc = SOURCE;
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: no browser opened the report")
@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("slo_attainment", ["0.33333,?,0.25", "0.25,0.33333,?", "0.33333,0.25,?"]),
        ("x", ["1,2,10", "1,2,10", "10,2,1"]),
        ("met", ["True,False,True", "False,True,True", "True,True,False"]),
    ],
)
def test_a_browser_shows_it_on_a_phone_and_sorts(column, order, text, tmp_path):
    probe = tmp_path / "probe.html"
    source = json.dumps(text).replace("</", "<\\/").replace("<!--", "<\\!--")
    probe.write_text(PROBE.replace("PRESSED", column).replace("SOURCE", source))
    options = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"]
    options += ["disable-background-networking", "disable-component-update", "disable-sync"]
    options += [f"user-data-dir={tmp_path / 'profile'}", "virtual-time-budget=5000", "dump-dom"]
    command = [str(CHROMIUM), *(f"--{option}" for option in options), probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search("<title>found (.*)</title>", done.stdout)
    assert found, done.stdout[:500] + done.stderr[-2000:]
    width, drawn, *orders = found[1].replace(page.UNKNOWN, "?").split(" | ")
    assert (int(width) <= 400, drawn, orders) == (True, "true", order)
