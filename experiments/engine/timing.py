"""Where a run's time goes: wall-clock parts, and how much of them JAX spent compiling."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator


class Stopwatch:
    """Wall-clock seconds of named parts, in order of first use; compiling is counted apart.

    A second within a part in which JAX traced, compiled, or loaded what it had compiled before,
    counts as `compile` and not as that part.
    """

    def __init__(self, start: float) -> None:
        """`start`: `time.perf_counter()` when the command began."""
        self.start = start
        self.parts: dict[str, float] = {}
        self.num_programs = 0  # compiled, or loaded from the cache on disk
        self._compiling: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin, compiled = time.perf_counter(), self._compile_s()
        try:
            yield
        finally:
            compiled = self._compile_s() - compiled
            if compiled:
                self._add("compile", compiled)
            self._add(name, time.perf_counter() - begin - compiled)

    def _add(self, name: str, seconds: float) -> None:
        self.parts[name] = self.parts.get(name, 0.0) + seconds

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """The part `import`, which loads JAX; from its end on, compiling is seen."""
        with self.part("import"):
            yield
            import jax.monitoring

            own = weakref.WeakMethod(self._listen)  # JAX keeps what it is given for good

            def listen(event: str, duration_secs: float, **_: str | int) -> None:
                if (method := own()) is not None:
                    method(event, duration_secs)

            jax.monitoring.register_event_duration_secs_listener(listen)

    def _listen(self, event: str, duration_secs: float) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self._compiling.append((now - duration_secs, now))
            self.num_programs += event.endswith("/backend_compile_duration")

    def _compile_s(self) -> float:
        """Length of the union of the reported intervals: they nest, and threads overlap."""
        total, reached = 0.0, 0.0
        for begin, end in sorted(self._compiling):
            total += max(end - max(begin, reached), 0.0)
            reached = max(reached, end)
        return total

    def report(self) -> str:
        """One line: the total and its parts, `4.2 s: import 1.3, place 2.0, ...`."""
        total = time.perf_counter() - self.start
        return f"{total:.1f} s: " + ", ".join(f"{name} {s:.1f}" for name, s in self.parts.items())
