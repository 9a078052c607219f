"""Command lines with odd flags and files, in this process and as processes of their own."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

import run
from experiments.cli import configs
from experiments.engine.fields import describe, walk

from .damage import DEEP, NUMBERS, TEXTS, csv_files, documents
from .files import GROUPS, HEAD, MODEL_ROWS, MODELS, PROFILE, REQUESTS, TRACES
from .hunt import ROOT, Defect, Target, require_named, require_short

POOLS = (
    ("name", "num_devices", "profile", "memory_gib", "price_per_hour"),
    ("new", "2", "profile.json", "13", "1.5"),
    ("old", "1", "profile.json", "24", "1"),
)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


TINY_ROWS = [
    {
        "model": "tiny",
        "dp": 1,
        "op": 1,
        "pp": pp,
        "batch": batch,
        "stage_latency_s": [0.01 * batch] * pp,
    }
    | {"weight_mem_bytes": [1e6] * pp, "act_mem_bytes": [0] * pp}
    for pp in (1, 2)
    for batch in (1, 2, 4)
]
PLACEMENT = HEAD | {"models": MODELS, "groups": GROUPS[:1]}
GOOD: Mapping[str, bytes] = {
    "profile.json": json.dumps(PROFILE).encode(),
    "placement.json": json.dumps(PLACEMENT).encode(),
    "requests.csv": _csv(REQUESTS),
    "models.csv": _csv(MODEL_ROWS),
    "pools.csv": _csv(POOLS),
    "trace.csv": _csv(TRACES["requests"]),
    "rows.json": json.dumps(TINY_ROWS).encode(),
}
DAMAGED: Mapping[str, st.SearchStrategy[bytes]] = {
    "profile.json": documents(PROFILE),
    "placement.json": documents(PLACEMENT),
    "requests.csv": csv_files(REQUESTS),
    "models.csv": csv_files(MODEL_ROWS),
    "pools.csv": csv_files(POOLS),
    "trace.csv": csv_files(TRACES["requests"]),
    "rows.json": documents(TINY_ROWS),
}
SHARED = {"profile": "profile.json", "model_types": "t"}
SMALL: Mapping[str, Mapping[str, str]] = {
    "evaluate": {
        "profile": "profile.json", "placement": "placement.json", "requests": "requests.csv",
    },
    "quickstart": SHARED | {"requests": "requests.csv", "num_devices": "2"},
    "plan": SHARED | {
        "requests": "requests.csv", "num_devices": "2", "block_s": "1", "seeds": "2",
        "warmup_s": "0",
    },
    "sweep": SHARED | {
        "num_models": "2", "num_devices": "1,2", "rates": "4", "cvs": "1", "durations_s": "30",
        "seeds": "1",
    },
    "trace_report": {"trace": "trace.csv"},
    "loading": SHARED | {
        "num_devices": "2", "trace": "trace.csv", "train": "0.0.0-0.0.1", "test": "0.0.0-0.0.1",
        "loads_gib_s": "1", "policies": "mp-search,mp-replace-60", "rate_scale": "1",
    },
    "fit_profile": {
        "rows": "rows.json", "device_gib": "1", "ops": "1", "pps": "1,2", "batches": "1,2",
    },
    "profile": {
        "models": "tiny", "pps": "1", "batches": "1", "sequence": "8", "warmup": "0",
        "repeats": "1",
    },
}  # fmt: skip
FILES: Mapping[str, str] = {
    "start_from": "placement.json",
    "pools": "pools.csv",
    "models": "models.csv",
    "trace": "trace.csv",
    "test_requests": "requests.csv",
}
"""Fields of files that small commands leave out, and which fits."""
LIST_OF = ",..."


class Command(NamedTuple):
    """A config, its fields, and the files that are there; odd: the fields and files that are."""

    config: str
    fields: dict[str, str]
    files: dict[str, bytes]
    odd: tuple[str, ...]


def _texts(kind: str) -> st.SearchStrategy[str]:
    """What a field of this kind may be given, sensible or not; few large numbers that are valid."""
    small = ("1", "2", "3") if "int" in kind else ("0.1", "1", "2.5")
    odd = st.sampled_from((*small, *map(str, NUMBERS[:-4]), "nan", "inf", "-inf", *TEXTS))
    one = odd.filter(lambda text: text != DEEP and "\0" not in text and "\ud800" not in text)
    return one | st.lists(one, max_size=3).map(",".join) if LIST_OF in kind else one


_FIELDS = {
    name: {
        leaf.name.removeprefix("config."): describe(leaf.annotation)
        for leaf in walk(configs.load(name).default)
    }
    for name in SMALL
}


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """One to three fields or files are odd."""
    config = draw(st.sampled_from([*SMALL]))
    fields, files, odd = dict(SMALL[config]), dict(GOOD), []
    known = _FIELDS[config]
    left_out = [name for name in FILES if name in known]
    for name in draw(st.lists(st.sampled_from(left_out), max_size=1)) if left_out else ():
        fields[name] = FILES[name]
        if name == "trace" and config == "plan":
            fields["requests"] = "none"
    for _ in range(draw(st.integers(1, 2))):
        named = [name for name in GOOD if name in fields.values()]
        if draw(st.booleans()) and named:
            name = draw(st.sampled_from(named))
            files[name] = draw(DAMAGED[name])
        else:
            name = draw(st.sampled_from([*known]))
            fields[name] = draw(_texts(known[name]))
        odd.append(name)
    return Command(config, fields, files, tuple(odd))


def _arguments(command: Command) -> list[str]:
    given = [f"--config.{name}={value}" for name, value in command.fields.items()]
    return ["run.py", "--config", command.config, *given, "--out_dir=out"]


def _feed(call: Callable[[list[str]], tuple[int, str]]) -> Callable[[Command], None]:
    def feed(command: Command) -> None:
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
            folder = Path(name)
            for file, content in command.files.items():
                (folder / file).write_bytes(content)
            code, err = call(_arguments(command))
            _require_good_end(code, err, command)
            left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
            outside = {path for path in left if not f"{path}/".startswith("out/")} - {*GOOD}
            if outside or any(path.endswith((".tmp", ".part")) for path in left):
                raise Defect(f"left behind: {sorted(left - {*GOOD})}")

    return feed


def _require_good_end(code: int, err: str, command: Command) -> None:
    said = [line for line in err.splitlines() if line and not line.startswith("warning: ")]
    if code == 0:
        return
    if code not in (run.FAILED, run.MISUSED):
        raise Defect(f"exit code {code}: {err[-1500:]}")
    text = "\n".join(said)
    if not text.startswith("error: "):
        raise Defect(f"no error: {text[-1500:]}")
    require_short(text)
    require_named(text.lower(), *(name for odd in command.odd for name in _names(odd, command)))


def _names(odd: str, command: Command) -> list[str]:
    """What an error may call a field or a file: its name, in words, its value, its flag."""
    if odd in command.files:
        return [odd, *(name for name, value in command.fields.items() if value == odd)]
    last = odd.rpartition(".")[2]
    words = last.replace("_", " ").removesuffix("s")
    given = [part.strip().lower() for part in command.fields[odd].split(",")]
    values = [f"'{part}'" for part in given] + [part for part in given if len(part) > 2]
    empty = ["swept values", "at least one model"] if given == [""] else []
    return ["--config.", odd, odd.partition(".")[0], last, words, *values, *empty]


def in_process(argv: list[str]) -> tuple[int, str]:
    """Run a command line here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run.main(argv, time.perf_counter())
    return code, err.getvalue()


def as_process(argv: list[str]) -> tuple[int, str]:
    """Run a command line as a user does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / argv[0]), *argv[1:]],
        capture_output=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    return done.returncode, done.stderr.decode()


COMMANDS: dict[str, Target] = {
    "command_line": Target(commands(), _feed(in_process), round=60),
}
PROCESSES: dict[str, Target] = {
    "process": Target(commands(), _feed(as_process), round=20, limit_s=320),
}
