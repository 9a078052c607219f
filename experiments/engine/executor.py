"""Where blocks are computed: in this process, or by workers on other machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from experiments.engine.points import Case
from experiments.engine.store import Record

if TYPE_CHECKING:  # which load JAX
    from experiments.engine.inputs import InputMaker
    from experiments.engine.keys import Keys
    from experiments.engine.timing import Stopwatch

MOST_PROGRAMS = 128
"""Compiled programs that a process keeps, which take some 5 MiB of memory each."""


class ExecutorError(ValueError):
    """Blocks cannot be computed where the user asked for it."""


class Done(NamedTuple):
    """A block that was computed, by which policy took how long to place it, and its seconds in all,
    without those of compiling."""

    block: Sequence[Case]
    records: Mapping[Case, Record]
    placing_s: Mapping[str, float]
    seconds: float


class Executor(Protocol):
    """Computes blocks; what it holds to do so, it holds until it is closed."""

    @property
    def workers(self) -> int:
        """How many blocks are computed side by side."""

    def compute(
        self,
        blocks: Iterable[Sequence[Case]],
        inputs: InputMaker,
        keys: Keys,
        stopwatch: Stopwatch,
        say: Callable[[str], None],
    ) -> Generator[Done, None, None]:
        """Every block, in order. Takes one from `blocks` when it can be computed; `say` is told
        what is being done. Raises ExecutorError, and what computing a block raises.
        """

    def close(self) -> None:
        """Let go of everything."""


class Embedded:
    """Computes block after block in this process, on all of its cores."""

    workers = 1

    def __init__(self) -> None:
        self._forgotten = 0  # compiled programs

    def compute(
        self,
        blocks: Iterable[Sequence[Case]],
        inputs: InputMaker,
        keys: Keys,
        stopwatch: Stopwatch,
        say: Callable[[str], None],
    ) -> Generator[Done, None, None]:
        from beta_jax import backend
        from experiments.engine import compute

        for block in blocks:
            begin, compiled_s = time.perf_counter(), stopwatch.parts.get("compile", 0.0)
            records, placing_s = compute.compute_block(block, inputs, stopwatch, say)
            compiled_s = stopwatch.parts.get("compile", 0.0) - compiled_s
            seconds = max(time.perf_counter() - begin - compiled_s, 1e-3)
            if stopwatch.num_programs - self._forgotten > MOST_PROGRAMS:
                backend.forget_programs()
                self._forgotten = stopwatch.num_programs
            yield Done(block, records, placing_s, seconds)

    def close(self) -> None:
        pass


def named(name: str, ray_address: str | None = None) -> Executor:
    """The executor of that name: `embedded` or `ray`. Starts nothing."""
    if name == "ray":
        from experiments.engine.ray_executor import RayExecutor

        return RayExecutor(ray_address)
    return Embedded()


NAMES = ("embedded", "ray")
