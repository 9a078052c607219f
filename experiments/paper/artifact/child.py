"""A command in a process of its own: how long it took, and how much memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.engine.files import ROOT

POLL_S, NOTE_S = 0.1, 5.0
GRACE_S = 30.0
"""How long a command may take to end that was asked to."""
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024


class Usage(NamedTuple):
    """What a command took, in all its attempts: `peak_bytes` is that of the largest process."""

    attempts: int = 0
    seconds: float = 0.0
    processor_s: float = 0.0
    peak_bytes: int = 0

    def __add__(self, other: object) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.attempts + other.attempts,
            self.seconds + other.seconds,
            self.processor_s + other.processor_s,
            max(self.peak_bytes, other.peak_bytes),
        )


def run(arguments: Sequence[str], note: Callable[[Usage], None]) -> tuple[int, Usage]:
    """Run Python with these arguments and this checkout's modules; returns the exit code and usage.

    What it prints is not shown, progress bars and errors are. note: is told every few seconds what
    was used so far, for an account of a run that is killed. The command ends with this process,
    however that ends (on Linux; elsewhere a kill leaves it to itself).
    """
    begin = noted = time.perf_counter()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(DIES_WITH_PARENT, signal.SIGKILL)

    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
        preexec_fn=end_with_parent,
    )
    try:
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            now = time.perf_counter()
            if now > noted + NOTE_S:
                note(_so_far(process.pid, now - begin))
                noted = now
            time.sleep(POLL_S)
    except BaseException:
        _end(process)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    peak = used.ru_maxrss * BYTES_OF_MAXRSS
    return process.returncode, Usage(1, seconds, used.ru_utime + used.ru_stime, peak)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have it store what it has finished, as after Ctrl-C, which may have reached it already.

    SIGTERM, as what was started in the background ignores Ctrl-C.
    """
    for wait_s, ask in ((2.0, signal.SIGTERM), (GRACE_S, signal.SIGKILL)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            return
        process.send_signal(ask)
    process.wait()


def _so_far(pid: int, seconds: float) -> Usage:
    """Of a process that runs; where the system does not tell, only the time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return Usage(1, seconds)
    processor_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Usage(1, seconds, processor_s, int(peak) * 1024)
