"""Feeds a target what its strategy makes; keeps the smallest input of every defect."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES, MOST_CHARACTERS = 3, 2000


class Target(NamedTuple):
    """Something that is fed odd input.

    feed: takes one input, and raises whatever it raises where that is a defect.
    round: inputs that hypothesis draws before it starts anew. limit_s: what takes longer hangs.
    """

    inputs: st.SearchStrategy[Any]
    feed: Callable[[Any], None]
    round: int = 200
    limit_s: float = 60.0


class Defect(AssertionError):
    """An error that is not what was promised."""


class Hang(BaseException):
    """An input that takes too long; not an Exception, so that nothing on the way handles it."""


class Shown(Exception):
    """A defect that was noted."""


class TimeIsUp(BaseException):
    """The end of a hunt."""


class Found(NamedTuple):
    """Inputs that were fed, and by where it showed the smallest input and the traceback of each
    defect."""

    num_inputs: int
    defects: dict[str, tuple[str, str]]


def hunt(target: Target, *, start: int, seconds: float = 1e9, num_inputs: int = 10**9) -> Found:
    """Feed the target, by seeds from `start` on, for so long or with so many inputs."""
    fed, defects = 0, dict[str, tuple[str, str]]()
    end, settled = time.monotonic() + seconds, set[str]()

    def feed(value: Any) -> None:
        nonlocal fed
        if time.monotonic() > end or fed >= num_inputs:
            raise TimeIsUp
        fed += 1
        try:
            with _limit(target.limit_s), warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                target.feed(value)
        except (TimeIsUp, KeyboardInterrupt):
            raise
        except BaseException as error:
            place = _place(error)
            if place in settled:
                return
            shown = repr(value)
            if place not in defects or len(shown) < len(defects[place][0]):
                defects[place] = shown, "".join(traceback.format_exception(error))
            if isinstance(error, Exception):
                raise Shown from error  # so that hypothesis looks for a smaller one

    for number in range(start, sys.maxsize):
        once = settings(
            max_examples=min(target.round, num_inputs),
            database=None,
            deadline=None,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )(given(target.inputs)(feed))
        try:
            seed(number)(once)()
        except (Shown, ExceptionGroup, Flaky):
            pass
        except TimeIsUp:
            return Found(fed, defects)
        if time.monotonic() > end or fed >= num_inputs:
            return Found(fed, defects)
        settled |= {*defects}
    raise AssertionError("there are no more seeds")


def require_short(message: str) -> None:
    """Raise Defect unless it is one to three lines of sensible length."""
    lines = message.strip().splitlines()
    if not 1 <= len(lines) <= MOST_LINES or len(message) > MOST_CHARACTERS:
        raise Defect(f"{len(lines)} lines, {len(message)} characters: {message[:1500]!r}")


def require_named(message: str, *names: str) -> None:
    """Raise Defect unless one of the names is in it."""
    if not any(name in message for name in names):
        raise Defect(f"names none of {', '.join(names)}: {message}")


def _place(error: BaseException) -> str:
    """Where an error was raised, by which it is told from others."""
    if isinstance(error, Defect):
        return re.sub(r"[\d.]+|'[^']*'", "_", str(error))[:160]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT) and "/.venv/" not in frame.filename
    ]
    last = frames[-1]
    file = Path(last.filename).relative_to(ROOT)
    return f"{type(error).__name__} in {file}:{last.lineno} ({last.name})"


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
