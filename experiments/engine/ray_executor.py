"""Blocks computed by the machines of a Ray cluster, each of which runs one block at a time.

Every machine has the repository at the same path, and Ray. The driver hands out blocks and stores
what comes back, in order, so that a run leaves what it would leave without Ray. A worker computes a
case only if it would store the result under the same key: the key is made of all that determines a
result, its code, its input files and, where numbers are rounded, its processor.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.engine.executor import Done, Embedded, ExecutorError
from experiments.engine.files import ROOT
from experiments.engine.points import Case
from experiments.engine.timing import Stopwatch

if TYPE_CHECKING:  # which load JAX
    from experiments.engine.inputs import InputMaker
    from experiments.engine.keys import Keys

ATTEMPTS = 3
"""How often a block is begun, whose worker dies each time, before the run ends."""
AHEAD = 4
"""Blocks per worker that are computed, or being so, before the first of them is stored."""
CONNECT_S = 10.0
SHA256_LENGTH = 64
LOOK_S = 5.0
"""How often machines are looked for that have joined the cluster."""

Node = str
"""A machine, by Ray's name of it."""


class Job(NamedTuple):
    """A block on its way, its place in the order, and how many workers have died over it."""

    number: int
    block: Sequence[Case]
    deaths: int = 0


class Unfit(NamedTuple):
    """Why a worker does not compute a case: what would determine its result there, or a problem."""

    case: Case
    statement: Mapping[str, str]
    problem: str = ""


class Worker:
    """On a machine of the cluster: computes blocks, if what it would compute is the same there."""

    def __init__(self, directory: str, modules: Iterable[str]) -> None:
        """directory: the driver's, which names of input files are relative to. modules: configs,
        which may register policies and processes of their own."""
        with contextlib.suppress(OSError):
            os.chdir(directory)
        self._stopwatch = Stopwatch(0.0)
        with self._stopwatch.imports():
            from experiments.engine.inputs import InputMaker
            from experiments.engine.keys import Keys

            for module in modules:
                importlib.import_module(module)
        self._inputs, self._keys, self._embedded = InputMaker(), Keys(), Embedded()

    def host(self) -> str:
        return socket.gethostname()

    def compute(self, block: Sequence[Case], jaxlib: str, keys: Sequence[str]) -> Done | Unfit:
        """The block; or why not, where the driver's keys or its jaxlib are others."""
        for case, key in zip(block, keys, strict=True):
            try:
                if self._keys(case) != key or metadata.version("jaxlib") != jaxlib:
                    return Unfit(case, statement(case, self._keys))
            except OSError as error:
                return Unfit(case, {}, f"{error.filename}: {error.strerror}")
        own = self._inputs, self._keys, self._stopwatch, lambda _: None
        return next(self._embedded.compute([block], *own))


class RayExecutor:
    """A worker on each machine of a cluster, and another one where it dies."""

    def __init__(self, address: str | None) -> None:
        """address: the cluster's; None for the environment's RAY_ADDRESS, or else a Ray of its own
        on this machine."""
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._ray: Any = None
        self._workers: dict[Node, Any] = {}
        self._starting: dict[Any, Node] = {}  # by what will tell that a worker is up
        self._hosts: dict[Node, str] = {}
        self._refused: dict[Node, str] = {}  # and why

    @property
    def workers(self) -> int:
        return max(len(self._workers), 1)

    def compute(
        self,
        blocks: Iterable[Sequence[Case]],
        inputs: InputMaker,
        keys: Keys,
        stopwatch: Stopwatch,
        say: Callable[[str], None],
    ) -> Generator[Done, None, None]:
        with stopwatch.part("start ray"):
            self._connect()
        fresh = (Job(*numbered) for numbered in enumerate(blocks))
        again: deque[Job] = deque()
        busy: dict[Any, tuple[Node, Job]] = {}
        done: dict[int, Done] = {}
        first, begun, more = 0, 0, True
        try:
            while True:
                self._recruit()
                working = {node for node, _ in busy.values()} | {*self._starting.values()}
                for node in [node for node in self._workers if node not in working]:
                    job = again.popleft() if again else None
                    if job is None and more and begun - first < AHEAD * self.workers:
                        job = next(fresh, None)
                        begun, more = begun + 1, job is not None
                    if job is not None:
                        busy[self._begin(node, job, keys)] = node, job
                while first in done:
                    yield done.pop(first)
                    first += 1
                if not (more or again or busy or done):
                    return
                say(f"{len(busy)} blocks on {len(self._workers)} machines")
                with stopwatch.part("workers"):
                    ready, _ = self._ray.wait([*busy, *self._starting], timeout=LOOK_S)
                for ref in ready:
                    if ref in self._starting:
                        self._meet(ref)
                        continue
                    node, job = busy.pop(ref)
                    found = self._take(ref, node, job, keys)
                    if isinstance(found, Job):
                        again.append(found)
                    else:
                        done[job.number] = found
        finally:
            for node, _ in busy.values():  # the run ends, and nobody waits for these any more
                self._dismiss(node)

    def close(self) -> None:
        if self._ray is not None:
            self._ray.shutdown()

    def _connect(self) -> None:
        if self._ray is not None:
            return
        try:
            ray: Any = importlib.import_module("ray")
            importlib.import_module("ray.util.scheduling_strategies")
        except ImportError:
            raise ExecutorError(
                "--executor=ray needs Ray, which is not installed: "
                "python -m pip install -e '.[ray]' here and on every machine"
            ) from None
        self._require_reachable()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            options["include_dashboard"] = False
        on_terminate = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self._address or "local", **options)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster at {self._address}" if self._address else "a Ray of its own"
            raise ExecutorError(f"--executor=ray cannot use {where}: {_line(error)}") from None
        with contextlib.suppress(ValueError):  # only the main thread may set it
            signal.signal(signal.SIGTERM, on_terminate)  # Ray's ends the process at once
        self._ray = ray

    def _require_reachable(self) -> None:
        """Ray would try for minutes."""
        if self._address in (None, "auto", "local"):
            return
        host, _, port = self._address.rpartition("://")[2].rpartition(":")
        problem = "an address is HOST:PORT"
        if host and port.isdigit():
            try:
                socket.create_connection((host, int(port)), CONNECT_S).close()
                return
            except (OSError, OverflowError) as error:
                problem = getattr(error, "strerror", None) or str(error)
        raise ExecutorError(f"there is no Ray cluster at {self._address}: {problem}")

    def _recruit(self) -> None:
        """Have a worker on every machine that is not refused; ExecutorError if there is none."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        modules = [name for name in sys.modules if name.startswith("configs.")]
        for node in self._ray.nodes():
            name, resources = node["NodeID"], node["Resources"]
            known = name in self._workers or name in self._refused
            if known or not node["Alive"] or not resources.get("CPU"):
                continue
            worker = (
                self._ray.remote(Worker)
                .options(  # all of the machine, as a run without Ray takes
                    num_cpus=resources["CPU"],
                    num_gpus=resources.get("GPU", 0),
                    scheduling_strategy=strategy(name, soft=False),
                )
                .remote(os.getcwd(), modules)
            )
            self._workers[name], self._hosts[name] = worker, node["NodeManagerHostname"]
            self._starting[worker.host.remote()] = name
        if not self._workers:
            reasons = "; ".join(self._refused.values()) or "it has none with a CPU"
            raise ExecutorError(f"no machine of the Ray cluster can compute this: {reasons}")

    def _meet(self, ref: Any) -> None:
        node = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            hint = f"is the repository at {ROOT} there?"
            self._refuse(node, f"its worker does not start: {_line(error)}; {hint}")

    def _begin(self, node: Node, job: Job, keys: Keys) -> Any:
        own = [keys(case) for case in job.block]
        return self._workers[node].compute.remote(job.block, metadata.version("jaxlib"), own)

    def _take(self, ref: Any, node: Node, job: Job, keys: Keys) -> Done | Job:
        """What a worker has computed, or the job for another one to do."""
        errors = self._ray.exceptions
        try:
            found = self._ray.get(ref)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            self._dismiss(node)
            job = job._replace(deaths=job.deaths + 1)
            if job.deaths == ATTEMPTS:
                raise ExecutorError(
                    f"{ATTEMPTS} workers died over the same {len(job.block)} results, the last one "
                    f"on {self._hosts[node]}: {_line(error)}"
                ) from None
            _warn(f"the worker on {self._hosts[node]} died; what it was at is computed again")
            return job
        if isinstance(found, Done):
            return found
        here = statement(found.case, keys)
        self._refuse(node, found.problem or differences(here, found.statement))
        return job

    def _refuse(self, node: Node, reason: str) -> None:
        self._refused[node] = f"{self._hosts[node]} is refused: {reason}"
        _warn(self._refused[node])
        self._dismiss(node)

    def _dismiss(self, node: Node) -> None:
        if (worker := self._workers.pop(node, None)) is not None:
            self._ray.kill(worker)


def statement(case: Case, keys: Keys) -> dict[str, str]:
    """All that determines a case's result here, by name."""
    from experiments.engine import fingerprint
    from experiments.engine.keys import ROOTS

    parts = keys.parts(case)
    named = {**parts.pop("machine", {}), "jaxlib": metadata.version("jaxlib")}
    named |= {f"the code of {name}": own for name, own in fingerprint.closure(ROOTS).items()}
    named |= {name: str(value) for name, value in parts.pop("scenario").items()}
    return named | {name: str(value) for name, value in parts.items() if name != "code"}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What two statements differ in."""
    found = []
    for name in dict.fromkeys([*here, *there]):
        ours, theirs = here.get(name, "nothing"), there.get(name, "nothing")
        if ours == theirs:
            continue
        if len(ours.split()) > 1:  # instructions of a processor: there are hundreds
            words = sorted({*ours.split()} ^ {*theirs.split()})
            found.append(f"{name} ({', '.join(words[:4])}{', ...' * (len(words) > 4)})")
        elif max(len(ours), len(theirs)) < SHA256_LENGTH:
            found.append(f"{name} ({ours} here, {theirs} there)")
        else:
            found.append(name)
    more = f", and {len(found) - 4} more" if len(found) > 4 else ""
    return f"other than here are {', '.join(found[:4])}{more}"


def _line(error: BaseException) -> str:
    """The last line, which says what was wrong; those before it say where."""
    return str(error).strip().rpartition("\n")[2]


def _warn(text: str) -> None:
    print(f"\nwarning: {text}", file=sys.stderr, flush=True)
