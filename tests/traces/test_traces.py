"""Trace files: what is read from good ones, and how bad ones are refused."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import beta_jax
from beta_jax.traces import (
    ArrivalTrace,
    CountTrace,
    RateTrace,
    Statistics,
    TraceError,
    draw,
    load_trace,
    maf1_like,
    maf2_like,
    table,
)
from beta_jax.traces.__main__ import main
from beta_jax.traces.report import autocorrelation
from beta_jax.traces.trace import format_time, parse_time

MAF1_IDS = "HashOwner,HashApp,HashFunction,Trigger"
MAF1 = f"{MAF1_IDS},1,2,3\no,a,f,http,0,7,1\no,a,g,timer,2,0,0\n"
MAF2 = "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,11,2\na,f,61,0\n"
LLM = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
)
REQUESTS = "arrival_s,model\n0.5,x\n1.5,y\n1.5,x\n"
RATES = "client,timestamp_s,rate,cv,pattern\na,600,0.5,2,Gamma\na,1200,0,0,\nb,1200,1.5,1,Weibull\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    def write(text, name="trace.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def entries(trace, bin_s=60.0):
    """{(window, function name): requests} of the whole trace."""
    e = trace.entries(trace.start_s, trace.end_s, bin_s)
    names = [trace.functions[f] for f in e.function]
    found = dict(zip(zip(e.window.tolist(), names, strict=True), e.requests.tolist(), strict=True))
    assert len(found) == len(names)
    return found


# --- the real samples ----------------------------------------------------------------------------


def test_a_real_day_of_maf1(shared):
    trace = load_trace(shared / "data" / "traces" / "maf1_day")
    assert isinstance(trace, CountTrace)
    assert len(trace.functions) == 1000
    assert (trace.start_s, trace.end_s) == (0, 86400)
    assert trace.entries(0, 86400, 60.0).requests.sum() == 11_639_447
    assert trace.entries(0, 3600, 3600.0).requests.sum() == 1_351_218


def test_a_real_part_of_a_day(shared):
    path = shared / "data" / "traces" / "maf1_500_functions_minutes_480_959.csv"
    trace = load_trace(path)
    assert len(trace.functions) == 500
    # Column 480 is the 480th minute of the day, which begins at 7:59.
    assert trace.bounds("0.7.59", "0.15.59") == (trace.start_s, trace.end_s)
    frame = pd.read_csv(path)
    minute = trace.entries(*trace.bounds("0.12.0", "0.12.1"), 60.0)
    assert minute.requests.sum() == frame["721"].sum() > 0
    with pytest.raises(TraceError, match=r"spans 0\.7\.59 to 0\.15\.59"):
        trace.bounds("0.7.0", "0.8.0")


@pytest.mark.parametrize(("name", "requests"), [("code", 8819), ("conv", 19366)])
def test_real_llm_traces(shared, name, requests):
    path = shared / "data" / "traces" / f"AzureLLMInferenceTrace_{name}.csv"
    trace = load_trace(path)
    assert isinstance(trace, ArrivalTrace)
    assert len(trace.arrival_s) == requests
    assert trace.functions == [f"AzureLLMInferenceTrace_{name}"]
    times = pd.to_datetime(pd.read_csv(path)["TIMESTAMP"])
    seconds = (times - pd.Timestamp("2023-11-16")) / pd.Timedelta(seconds=1)
    np.testing.assert_allclose(trace.arrival_s, seconds, atol=1e-6)
    assert trace.bounds("0.18.20", "0.19.10")


def test_real_rows_of_maf2_and_real_rates(shared):
    folder = shared / "data" / "traces"
    trace = load_trace(folder / "maf2_199_rows.csv")
    assert (len(trace.arrival_s), len(trace.functions), trace.kind) == (199, 31, "maf2")
    frame = pd.read_csv(folder / "maf2_199_rows.csv")
    np.testing.assert_array_equal(trace.arrival_s, np.sort(frame.end_timestamp - frame.duration))
    assert list(trace.functions) == list(dict.fromkeys(frame.func))
    trace = load_trace(folder / "servegen_deepseek_r1_rate_cv.csv")
    assert isinstance(trace, RateTrace)
    assert trace.rate_rps.shape == (73, 144) and trace.window_s == 600
    assert Statistics(trace).requests > 1e6
    workload = beta_jax.replay(trace, 10, start="0.2.0", end="0.3.0", rate_scale=0.1)
    assert len(workload) > 100


# --- files made up -------------------------------------------------------------------------------


def test_counts_of_several_days_are_one_trace(tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    minutes = ",".join(str(minute) for minute in range(1, 1441))
    zeros = ",0" * 1437
    for day, rows in ((1, ["f,timer,1,0,2", "g,http,0,3,0"]), (2, ["h,x,5,0,0", "f,timer,4,0,0"])):
        text = f"{MAF1_IDS},{minutes}\n" + "".join(f"o,a,{row}{zeros}\n" for row in rows)
        (folder / f"invocations_per_function_md.anon.d{day:02}.csv").write_text(text)
    (folder / "function_durations_percentiles.anon.d01.csv").write_text("HashOwner\n")  # left alone
    trace = load_trace(folder)
    assert trace.functions == ["f", "g", "h"]
    assert entries(trace) == {
        (0, "f"): 1, (1, "g"): 3, (2, "f"): 2, (1440, "h"): 5, (1440, "f"): 4
    }  # fmt: skip
    assert trace.entries(86400.0, 172800.0, 3600.0).requests.sum() == 9
    second = folder / "invocations_per_function_md.anon.d02.csv"
    assert load_trace(second).bounds("1.0.0", "1.23.60") == (86400, 172800)
    second.rename(folder / "invocations_per_function_md.anon.d03.csv")
    with pytest.raises(TraceError, match=r"d03\.csv: does not go on where the day file before it"):
        load_trace(folder)


def test_every_kind_is_found_out(write):
    assert entries(load_trace(write(MAF1))) == {(1, "f"): 7, (2, "f"): 1, (0, "g"): 2}
    trace = load_trace(write(MAF2))
    assert trace.kind == "maf2" and trace.arrival_s.tolist() == [9, 10, 61]
    assert [trace.functions[f] for f in trace.function] == ["g", "f", "f"]
    trace = load_trace(write(LLM, "code.csv"))
    assert trace.functions == ["code"]
    np.testing.assert_allclose(trace.arrival_s, [65823.97996, 65824.03196])
    trace = load_trace(write(REQUESTS))
    assert [trace.functions[f] for f in trace.function] == ["x", "y", "x"]
    trace = load_trace(write(RATES))
    assert trace.rate_rps.tolist() == [[0.5, 0], [0, 1.5]] and trace.start_s == 600


def test_llm_files_of_a_folder_are_functions(tmp_path):
    (tmp_path / "conv.csv").write_text(LLM.replace("18:17:03.9799600", "23:59:59.5"))
    # As in the traces of 2024, with a time zone.
    later = LLM.replace("2023-11-16 18:17", "2023-11-17 00:00").replace("00,", "00+00:00,")
    (tmp_path / "code.csv").write_text(later)
    trace = load_trace(tmp_path)
    assert trace.functions == ["code", "conv"]
    np.testing.assert_allclose(trace.arrival_s, [65824.03196, 86399.5, 86403.97996, 86404.03196])
    assert trace.function.tolist() == [1, 1, 0, 0]
    assert trace.prompt_tokens.tolist() == [3180, 4808, 4808, 3180]
    assert trace.answer_tokens.tolist() == [8, 10, 10, 8]


@pytest.mark.parametrize("text", [MAF1, MAF2, LLM, REQUESTS, RATES])
def test_gzip_crlf_bom_order_and_blank_lines_change_nothing(write, text):
    plain = load_trace(write(text), cache=False)
    header, *rows = text.splitlines()
    crlf = "\r\n".join([header, *rows, "", ""]).encode()
    shuffled = "\n".join([header, *reversed(rows)])
    for other in (
        crlf,
        b"\xef\xbb\xbf" + text.encode(),
        gzip.compress(text.encode()),
        gzip.compress(b"\xef\xbb\xbf" + crlf),
        shuffled,  # unsorted times are sorted
        text.rstrip("\n"),
    ):
        trace = load_trace(write(other), cache=False)
        bin_s = 600.0 if text is RATES else 60.0
        assert entries(trace, bin_s) == entries(plain, bin_s)
        if isinstance(trace, ArrivalTrace):
            assert trace.arrival_s.tolist() == plain.arrival_s.tolist()


def test_large_files_are_read_in_chunks(write, monkeypatch):
    monkeypatch.setattr("beta_jax.traces.tables.CHUNK_FIELDS", 40)
    random = np.random.default_rng(0)
    end_s = np.sort(random.uniform(0, 1000, 500)).round(3)
    names = random.choice(list("abcdefg"), 500)
    rows = [f"app,{n},{e},0.0" for n, e in zip(names, end_s, strict=True)]
    trace = load_trace(write("app,func,end_timestamp,duration\n" + "\n".join(rows)))
    assert trace.arrival_s.tolist() == end_s.tolist()
    assert [trace.functions[f] for f in trace.function] == names.tolist()
    rows[77] = "app,a,10,ten"
    with pytest.raises(TraceError, match=r"line 79, column duration: .* found 'ten'"):
        load_trace(write("app,func,end_timestamp,duration\n" + "\n".join(rows)))


# --- bad files -----------------------------------------------------------------------------------

BAD = {
    "no file": (None, "No such file"),
    "0 bytes": ("", "the file is empty"),
    "header alone": (MAF2.splitlines()[0], "no rows below the header"),
    "maf1 without rows": (MAF1.splitlines()[0], "no rows below the header"),
    "not a trace": ("a,b\n1,2\n", "line 1: these are not the columns of a trace: a,b"),
    "durations": ("Average,Count,Minimum\n1,2,3\n", "line 1: these are not the columns of a trace"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not a text file in UTF-8"),
    "zero bytes": (b"app,func\x00" + b"x" * 200_000, "not a table of comma-separated values"),
    "renamed column": (MAF2.replace("duration", "Duration"), "line 1: there is no column 'dur"),
    "missing column": ("app,func,duration\na,f,1\n", "there is no column 'end_timestamp'"),
    "column twice": (MAF2.replace("app,", "func,"), "there is no column 'app'"),
    "func twice": (
        "app,func,end_timestamp,duration,func\na,f,1,1,g\n", "there is two columns 'func'"
    ),
    "missing id": (MAF1.replace("HashApp", "App"), "there is no column 'HashApp'"),
    "missing minute": (MAF1.replace(",2,3\n", ",3,4\n"), "consecutive minutes"),
    "minute 0": (MAF1.replace("1,2,3\n", "0,1,2\n"), "minutes must be 1 to 1440"),
    "minute 1441": (MAF1.replace("1,2,3\n", "1439,1440,1441\n"), "minutes must be 1 to 1440"),
    "no minutes": (f"{MAF1_IDS}\no,a,f,x\n", "consecutive minutes"),
    "truncated row": (MAF2[:-4], "line 4: expected 4 fields, found 3"),
    "truncated counts": (MAF1[:-5], "line 3: expected 7 fields, found 5"),
    "row too long": (MAF2 + "a,f,1,2,3\n", "line 5: expected 4 fields, found 5"),
    "first row too long": (MAF2.replace("10.5,", "10.5,1,"), "line 2: expected 4 fields, found 5"),
    "counts too long": (MAF1.replace("7,1\n", "7,1,1\n"), "line 2: expected 7 fields, found 8"),
    "truncated llm": (LLM[:-3], "line 3: expected 3 fields, found 2"),
    "negative duration": (MAF2.replace(",2\n", ",-2\n"), "line 3, column duration: .*'-2'"),
    "NaN": (MAF2.replace("10.5", "nan"), "line 2, column end_timestamp: expected sec.*'nan'"),
    "infinite": (MAF2.replace("10.5", "inf"), "line 2, column end_timestamp: expected sec.*'inf'"),
    "empty field": (MAF2.replace("11,", ","), "line 3, column end_timestamp: .*found ''"),
    "no function": (MAF2.replace("a,g", "a,"), "line 3, column func: expected a name, found ''"),
    "text in a number": (REQUESTS.replace("1.5,y", "soon,y"), "line 3, column arrival_s: .*'soon'"),
    "negative time": (REQUESTS.replace("0.5", "-0.5"), "line 2, column arrival_s: .*'-0.5'"),
    "text in a count": (MAF1.replace("7", "many"), "line 2, column 2: expected a whole .*'many'"),
    "negative count": (MAF1.replace("7", "-7"), "line 2, column 2: expected a whole .*'-7'"),
    "part of a count": (MAF1.replace("7", "7.5"), "line 2, column 2: expected a whole .*'7.5'"),
    "huge count": (MAF1.replace("7", "9" * 30), "line 2, column 2: expected a whole"),
    "large count": (MAF1.replace("7", "9999999999"), "line 2, column 2: expected a whole"),
    "empty count": (MAF1.replace("7", ""), "line 2, column 2: expected a whole .*''"),
    "duplicate function": (MAF1.replace("a,g", "a,f"), "line 3, column HashFunction: 'f' is on l"),
    "no time": (LLM.replace("2023-11-16 18:17:04", "yesterday"), "line 3, column TIMESTAMP: "),
    "no such day": (LLM.replace("11-16 18:17:04", "13-16 18:17:04"), "line 3, column TIMESTAMP"),
    "no tokens": (LLM.replace("4808", "x"), "line 2, column ContextTokens: expected a whole"),
    "infinite tokens": (LLM.replace("4808", "inf"), "line 2, column ContextTokens: .*'inf'"),
    "negative rate": (RATES.replace("0.5", "-0.5"), "line 2, column rate: expected a number >= 0"),
    "NaN CV": (RATES.replace("0.5,2", "0.5,nan"), "line 2, column cv: expected a number >= 0"),
    "uneven windows": (RATES.replace("600", "700"), "windows of equal length"),
    "window twice": (RATES + "b,1200,1,1,\n", "client 'b' has the window at 1200 s twice"),
    "damaged gzip": (gzip.compress(MAF2.encode())[:-12], "the gzip file is damaged or cut short"),
    "gzip by name": (b"\x1f\x8bnot gzip at all", "the gzip file is damaged or cut short"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_clear_line(case, write, tmp_path):
    text, message = BAD[case]
    path = tmp_path / "absent.csv" if text is None else write(text)
    with pytest.raises(TraceError, match=message) as error:
        load_trace(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


def test_another_kind_than_asked_for_is_named(write):
    with pytest.raises(TraceError, match=r"2019 \(MAF1\): app,func,.*looks like .*2021 \(MAF2\)"):
        load_trace(write(MAF2), kind="maf1")
    with pytest.raises(TraceError, match=r"2021 \(MAF2\): HashOwner,.*looks like .*2019 \(MAF1\)"):
        load_trace(write(MAF1), kind="maf2")
    with pytest.raises(TraceError, match="kind of trace must be"):
        load_trace(write(MAF1), kind="alibaba")


def test_bad_folders(tmp_path):
    with pytest.raises(TraceError, match=r"no \.csv or \.txt file"):
        load_trace(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(MAF2)
    with pytest.raises(
        TraceError, match=r"expected one file of this kind, found 2: a\.csv, b\.csv"
    ):
        load_trace(tmp_path)


# --- cache ---------------------------------------------------------------------------------------


def test_a_second_run_reads_the_parsed_form(write, tmp_path, monkeypatch):
    path = write(MAF1)
    first = load_trace(path)
    assert (tmp_path / "cache" / "beta_jax" / "traces").is_dir()
    monkeypatch.setattr(pd, "read_csv", lambda *_, **__: pytest.fail("parsed again"))
    assert entries(load_trace(path)) == entries(first)
    copy = write(MAF1, "copy.csv")  # found by content, whatever the name
    assert entries(load_trace(copy)) == entries(first)
    with pytest.raises(BaseException, match="parsed again"):
        load_trace(path, cache=False)
    with pytest.raises(BaseException, match="parsed again"):
        load_trace(path, cache=tmp_path / "elsewhere")


def test_a_changed_file_or_a_damaged_cache_is_parsed_again(write, tmp_path):
    folder = tmp_path / "kept"
    path = write(MAF2)
    load_trace(path, cache=folder)
    trace = load_trace(write(MAF2.replace("61,0", "71,0")), cache=folder)
    assert trace.arrival_s.tolist() == [9, 10, 71]
    for file in folder.rglob("arrival_s.npy"):
        file.write_bytes(b"junk")
    assert load_trace(path, cache=folder).arrival_s.tolist() == [9, 10, 71]
    assert load_trace(path, cache=folder).arrival_s.tolist() == [9, 10, 71]
    sealed = tmp_path / "file"
    sealed.write_text("not a folder")
    assert load_trace(path, cache=sealed).arrival_s.tolist() == [9, 10, 71]


# --- times ---------------------------------------------------------------------------------------


@given(st.integers(0, 14 * 1440))
def test_times_are_day_hour_minute(minute):
    assert parse_time(format_time(60.0 * minute)) == 60 * minute
    assert parse_time(format_time(60.0 * minute, round_up=True)) == 60 * minute


def test_the_very_end_of_a_fortnight():
    assert parse_time("13.23.60") == 14 * 86400
    assert format_time(14 * 86400.0, round_up=True) == "13.23.60"


# --- statistics and generated traces -------------------------------------------------------------


def test_statistics_of_a_small_trace(write):
    counts = [[10, 0] * 60, [2, 2] * 60]
    rows = [f"o,a,f{i},x," + ",".join(map(str, row)) + "\n" for i, row in enumerate(counts)]
    header = f"{MAF1_IDS}," + ",".join(str(minute) for minute in range(1, 121)) + "\n"
    trace = load_trace(write(header + "".join(rows)))
    numbers = table([Statistics(trace)])["trace.csv"]
    assert numbers["requests"] == 840 and numbers["hours"] == 2
    assert numbers["mean rate (requests/s)"] == pytest.approx(840 / 7200)
    assert numbers["share of the top function"] == pytest.approx(600 / 840)
    assert numbers["functions that carry 90 %"] == 2
    assert numbers["CV within an hour, all functions, median"] == pytest.approx(5 / 7)
    assert numbers["CV within an hour, per function, median"] == pytest.approx(0.5)
    assert numbers["CV within an hour, per function, 90th percentile"] == pytest.approx(1)
    assert numbers["autocorrelation, all functions, 1 min"] == pytest.approx(-119 / 120)
    assert np.isnan(numbers["autocorrelation, all functions, 1440 min"])
    with pytest.raises(TraceError, match="no request"):
        Statistics(load_trace(write("client,timestamp_s,rate,cv\na,0,0,1\na,60,0,1\n")))


def test_autocorrelation_is_the_textbook_sum():
    x = np.random.default_rng(1).normal(size=50).cumsum()
    c = x - x.mean()
    expected = [(c[lag:] * c[: 50 - lag]).sum() / (c**2).sum() for lag in range(26)]
    np.testing.assert_allclose(autocorrelation(x), expected, atol=1e-12)
    assert np.isnan(autocorrelation(np.ones(10))).all()


def test_generated_days_are_like_the_real_one(shared):
    # Without its first two hours, in which two functions make half of the requests.
    real = Statistics(load_trace(shared / "data" / "traces" / "maf1_day"), "0.2.0", "0.23.60")
    made = Statistics(maf1_like(1000, 4, seed=0))
    numbers = table([real, made])
    ratio = numbers["maf1_like"] / numbers["maf1_day"]
    for name in (
        "mean rate (requests/s)",
        "share of the top 1 % of functions",
        "share of the top 10 % of functions",
        "functions that carry 90 %",
        "CV within an hour, per function, median",
        "CV within an hour, per function, 90th percentile",
    ):
        assert 0.75 < ratio[name] < 1.35, name
    for name in (  # what hangs on the few largest functions
        "share of the top function",
        "busiest hour / mean rate",
        "CV of hourly rates",
        "CV within an hour, all functions, median",
        "autocorrelation, all functions, 1 min",
        "autocorrelation, all functions, 15 min",
        "autocorrelation, per function, 5 min",
    ):
        assert 0.4 < ratio[name] < 2.5, name


def test_generated_traces_depend_on_the_seed_alone():
    one, same, other = (maf1_like(60, 2, seed=seed) for seed in (5, 5, 6))
    assert entries(one) == entries(same) != entries(other)
    assert one.end_s == 2 * 86400
    fortnight = maf2_like(seed=3)
    assert fortnight.bounds("0.0.0", "13.23.60")
    assert len(fortnight.arrival_s) == pytest.approx(1.98e6, rel=0.15)
    assert (fortnight.arrival_s == maf2_like(seed=3).arrival_s).all()
    assert (np.diff(fortnight.arrival_s) >= 0).all()
    per_hour = fortnight.entries(0, 14 * 86400, 3600.0)
    hour = np.bincount(per_hour.window % 24, per_hour.requests)
    assert 2 < hour.max() / hour.min() < 6  # 3.2 in the published trace
    for bad in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(TraceError, match="needs functions, days and a seed"):
            maf1_like(*bad)


# --- the command line ----------------------------------------------------------------------------


def test_report_prints_draws_and_writes(write, tmp_path, capsys):
    plot, csv = tmp_path / "plot.png", tmp_path / "table.csv"
    random = np.random.default_rng(0)
    rows = [f"o,a,f{i},x," + ",".join(map(str, random.poisson(3, 180))) for i in range(5)]
    header = f"{MAF1_IDS}," + ",".join(str(minute) for minute in range(1, 181))
    path = write("\n".join([header, *rows]), "real.csv")
    arguments = ["report", str(path), "maf2_like", "--end", "0.3.0", "--no-cache"]
    assert main([*arguments, "--plot", str(plot), "--csv", str(csv)]) == 0
    out = capsys.readouterr().out
    assert "real.csv" in out and "maf2_like" in out and "autocorrelation, per function" in out
    assert plot.read_bytes()[:4] == b"\x89PNG"
    frame = pd.read_csv(csv, index_col=0)
    assert frame.loc["functions with requests", "real.csv"] == 5
    assert not (tmp_path / "cache" / "beta_jax").exists()
    assert main(["report", str(write(BAD["NaN"][0])), "--cache", str(tmp_path / "c")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_drawing_takes_every_kind(tmp_path, write):
    traces = [load_trace(write(text)) for text in (MAF1, MAF2, LLM, REQUESTS, RATES)]
    draw([Statistics(trace) for trace in traces], tmp_path / "all.pdf")
    assert (tmp_path / "all.pdf").stat().st_size > 1000


def test_import_is_cheap():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, beta_jax.traces; print('jax' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
