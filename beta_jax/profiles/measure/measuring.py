"""Which spans of layers are run, how they are timed, and what does not fit."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from tqdm import tqdm

from beta_jax.checks import require_numbers, require_whole
from beta_jax.profiles.architectures import Architecture
from beta_jax.profiles.measure.model import Span, SplitModel
from beta_jax.profiles.measure.results import CUTS, Cut, Measured, Row, Stage
from beta_jax.profiles.measure.transformer import Attention
from beta_jax.profiles.stages import balanced_cut, even_cut
from beta_jax.types import GB

MOST_CALLS = 10**6
DTYPES = ("bfloat16", "float16", "float32")
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
VIRTUAL = "XLA_FLAGS=--xla_force_host_platform_device_count"


class MeasureError(ValueError):
    """What was asked for cannot be measured here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How stages are measured.

    dtype: of weights and activations; None: bfloat16, on a CPU float32. attention: see
    `transformer.Attention`. memory_bytes: of each device; None: what the device says that JAX may
    use, on a CPU what the machine has free, divided by its devices in use. warmup: calls before
    those that count, of which there are `repeats`.
    """

    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    attention: Attention = "xla"
    memory_bytes: float | None = None
    warmup: int = 3
    repeats: int = 20

    def __post_init__(self) -> None:
        if self.dtype is not None and f"{self.dtype}" not in DTYPES:
            raise MeasureError(f"dtype is {' or '.join(DTYPES)}, got {self.dtype!r}")
        if f"{self.attention}" not in get_args(Attention):
            raise MeasureError(
                f"attention is {' or '.join(get_args(Attention))}, got {self.attention!r}"
            )
        try:
            require_whole("warmup", self.warmup, 0, MOST_CALLS)
            require_whole("repeats", self.repeats, 1, MOST_CALLS)
            if self.memory_bytes is not None:
                require_numbers(memory_bytes=self.memory_bytes)
        except ValueError as error:
            raise MeasureError(str(error)) from None
        if self.memory_bytes is not None and not 0 < self.memory_bytes < math.inf:
            raise MeasureError(f"memory must be > 0 and finite, got {self.memory_bytes:g} bytes")


def measure_profile(
    architectures: Mapping[str, Architecture],
    *,
    ops: Sequence[int] = (1,),
    pps: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    settings: MeasureSettings = MeasureSettings(),
    known: Mapping[str, Row] | None = None,
    keep: Callable[[str, Row], None] = lambda key, row: None,
    clock: Callable[[], float] = time.perf_counter,
    progress: bool = False,
) -> Measured:
    """Measure model types at every operator-parallel degree, number of stages and batch size.

    Stages are run one after another on the same devices, so `pps` needs no more devices than one
    stage. Each is called with random input until its result is there. Pipelines are cut twice:
    evenly, and balanced by the latency of the layers at batch size 1, measured first.

    Args:
        architectures: shapes by the name that the profile gives them.
        ops, pps, batches: degrees and batch sizes, 1 among the batch sizes.
        known: rows of an earlier call, by key, which are not measured again.
        keep: called with each new row and its key, as soon as it is there.
        clock: seconds.
        progress: whether to show a progress bar.

    Returns:
        The stages, in order of types, ops, pps, cuts, batch sizes. What does not fit the memory is
        among them, and ends nothing.

    Raises:
        MeasureError: a degree that the devices or the shapes do not allow, by name and field.
    """
    bench = _Bench(settings, known or {}, keep, clock)
    _require_possible(architectures, ops, pps, batches, len(bench.devices))
    pps, batches = sorted({*pps}), sorted({*batches})
    stages: list[Stage] = []
    layer_latency_s: dict[tuple[str, int], list[float]] = {}
    most = len(architectures) * len(ops) * sum(pps) * len(CUTS) * len(batches)
    with tqdm(total=most, unit="stage", leave=False, disable=None if progress else True) as bar:
        for name, architecture in architectures.items():
            for op in dict.fromkeys(ops):
                bar.set_description(f"{name}, op {op}")
                model = SplitModel(
                    architecture, bench.devices[:op], bench.dtype, settings.attention
                )
                layers = bench.layers(model)
                cuts = _cuts(architecture.layers, pps, layers)
                if layers:
                    layer_latency_s[name, op] = layers
                for (pp, cut), spans in cuts.items():
                    for number, span in enumerate(spans):
                        rows = bench.rows(model, span, batches)
                        for batch, row in zip(batches, rows, strict=True):
                            stages.append(Stage(name, op, pp, cut, batch, number, *span, row))
                        bar.update(len(batches))
    return Measured(
        sorted(
            stages, key=lambda stage: (stage.type, stage[1:3], CUTS.index(stage.cut), stage[4:])
        ),
        layer_latency_s,
        {name: architecture.sequence for name, architecture in architectures.items()},
        bench.chip,
        bench.dtype,
        bench.software,
    )


def _require_possible(
    architectures: Mapping[str, Architecture],
    ops: Sequence[int],
    pps: Sequence[int],
    batches: Sequence[int],
    num_devices: int,
) -> None:
    for what, values in (("models", architectures), ("ops", ops), ("pps", pps)):
        if not values:
            raise MeasureError(f"{what} is empty: nothing to measure")
    for what, numbers in (("ops", ops), ("pps", pps), ("batches", batches)):
        if wrong := [number for number in numbers if number < 1]:
            raise MeasureError(f"{what} must be >= 1, got {wrong[0]}")
    if 1 not in batches:
        raise MeasureError("batches must have 1 among them, as every profile has")
    if max(ops) > num_devices:
        there = f"there {'is' if num_devices == 1 else 'are'} {num_devices}"
        raise MeasureError(
            f"ops: {max(ops)} operator-parallel devices are wanted, {there}; "
            f"to try it without, {VIRTUAL}={max(ops)} makes a CPU look like as many"
        )
    for name, architecture in architectures.items():
        if max(pps) > architecture.layers:
            raise MeasureError(
                f"pps: {name} has {architecture.layers} blocks, too few for {max(pps)} stages"
            )
        for op in ops:
            try:
                architecture.require_divisible(op)
            except ValueError as error:
                raise MeasureError(f"ops: {name}: {error}") from None


def _cuts(
    num_blocks: int, pps: Iterable[int], layer_latency_s: Sequence[float]
) -> dict[tuple[int, Cut], list[Span]]:
    """Where each pipeline is cut; only evenly if the latency of layers is not known."""
    found: dict[tuple[int, Cut], list[Span]] = {}
    for pp in pps:
        if layer_latency_s:
            found[pp, "balanced"] = _spans(balanced_cut(layer_latency_s, pp))
        *others, last = even_cut(num_blocks, pp)
        found[pp, "even"] = _spans((*others, last + 1))  # the output embedding is a layer, too
    return found


def _spans(cut: Sequence[int]) -> list[Span]:
    ends = np.cumsum([0, *cut]).tolist()
    return [Span(begin, end) for begin, end in itertools.pairwise(ends)]


class _Bench:
    """The devices, how they are used, and what was measured on them before."""

    def __init__(
        self,
        settings: MeasureSettings,
        known: Mapping[str, Row],
        keep: Callable[[str, Row], None],
        clock: Callable[[], float],
    ) -> None:
        self.devices = jax.local_devices()
        self._on_cpu = self.devices[0].platform == "cpu"
        self._free_bytes = _free_bytes(self.devices[0])
        self.dtype = settings.dtype or ("float32" if self._on_cpu else "bfloat16")
        self.chip = _cpu_name() if self._on_cpu else self.devices[0].device_kind
        self.software = {"jax": jax.__version__, "jaxlib": jax.lib.__version__}
        self._settings, self._keep, self._clock = settings, keep, clock
        self._rows = dict(known)

    def layers(self, model: SplitModel) -> list[float]:
        """The latency of each layer at batch size 1, seconds; none if some layer does not fit."""
        architecture = model.architecture
        kinds = [architecture.parts(layer) for layer in range(architecture.layers + 1)]
        found = {}
        for kind in dict.fromkeys(kinds):
            layer = kinds.index(kind)
            [row] = self.rows(model, Span(layer, layer + 1), [1])
            if row["misfit"]:
                return []
            found[kind] = row["median_s"]
        return [found[kind] for kind in kinds]

    def rows(self, model: SplitModel, span: Span, batches: Sequence[int]) -> list[Row]:
        """The span at each batch size: measured, unless it was before."""
        weights: list[Any] = []
        found = []
        for batch in batches:
            key = self._key(model, span, batch)
            if key not in self._rows:
                row = self._measure(model, span, batch, weights)
                self._keep(key, row)
                self._rows[key] = row
            found.append(self._rows[key])
        return found

    def _key(self, model: SplitModel, span: Span, batch: int) -> str:
        """A hash of all that the row depends on."""
        of = {
            "architecture": dataclasses.asdict(model.architecture),
            "settings": dataclasses.asdict(self._settings) | {"dtype": self.dtype},
            "machine": [self.chip, self.software],
            "of": [model.op, *span, batch],
        }
        return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()

    def _measure(self, model: SplitModel, span: Span, batch: int, weights: list[Any]) -> Row:
        """Fills `weights` where the span's are not there yet."""
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        weight_bytes = model.weight_bytes(span)
        row = Row(
            median_s=0.0,
            low_s=0.0,
            high_s=0.0,
            weight_bytes=weight_bytes,
            act_bytes=0,
            misfit=self._misfit(weight_bytes, model.op),
            date=date,
        )
        if row["misfit"]:
            return row
        try:
            row["act_bytes"] = self._act_bytes(model, span, batch)
            row["misfit"] = self._misfit(weight_bytes + row["act_bytes"], model.op)
            if not row["misfit"]:
                if not weights:
                    weights += model.load(span)
                x = model.input(span, batch)
                seconds = self._time(lambda: model.run(span, weights, x))
                row["low_s"], row["median_s"], row["high_s"] = np.quantile(
                    seconds, (0.25, 0.5, 0.75)
                ).tolist()
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and OUT_OF_MEMORY not in str(error):
                raise
            row["misfit"] = "it ran out of memory"
        return row

    def _act_bytes(self, model: SplitModel, span: Span, batch: int) -> int:
        try:
            return model.act_bytes(span, batch)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            if model.attention == "xla" or OUT_OF_MEMORY in str(error):
                raise
            reason = str(error).partition("\n")[0]
            raise MeasureError(f"attention: {model.attention} does not work: {reason}") from None

    def _misfit(self, needed: float, op: int) -> str:
        limit = self._memory_bytes(op)
        return f"it needs {needed / GB:.3g} GiB of {limit / GB:.3g}" if needed > limit else ""

    def _memory_bytes(self, op: int) -> float:
        if self._settings.memory_bytes is not None:
            return self._settings.memory_bytes
        return self._free_bytes / op if self._on_cpu else self._free_bytes

    def _time(self, call: Callable[[], jax.Array]) -> list[float]:
        """Seconds of each call that counts, until its result is there."""
        for _ in range(self._settings.warmup):
            jax.block_until_ready(call())
        seconds = []
        for _ in range(self._settings.repeats):
            begin = self._clock()
            jax.block_until_ready(call())
            seconds.append(self._clock() - begin)
        return seconds


def _free_bytes(device: jax.Device) -> float:
    """What JAX may use of a device, as that says; on a CPU, what the machine has free."""
    if stats := device.memory_stats():
        return stats.get("bytes_limit", math.inf)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next(
        (1024.0 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable")), math.inf
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
