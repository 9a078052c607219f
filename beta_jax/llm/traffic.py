"""Traffic for engines that serve language models: made, fitted to a trace, or a trace itself.

Every kind is sampled the same way: a seed and a factor of the rate make requests, the same whatever
else is sampled. Arrivals are those of `beta_jax.workloads` and `beta_jax.traces`.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from beta_jax.llm.lengths import LENGTHS, TokenLengths
from beta_jax.llm.requests import LLMError, TokenRequests
from beta_jax.traces import ArrivalTrace, Trace, TraceError, Traffic, fit_traffic
from beta_jax.types import TICKS_PER_SECOND
from beta_jax.workloads.processes import PROCESSES, Process
from beta_jax.workloads.sampling import sample_arrivals

MOST_REQUESTS = 2**22
"""Of a sample."""


class TokenTraffic(Protocol):
    """What makes requests.

    rate_rps: requests/s on average, at a factor of 1. is_random: whether seeds differ.
    """

    @property
    def rate_rps(self) -> float: ...

    @property
    def is_random(self) -> bool: ...

    def sample(self, seed: int, rate_scale: float = 1.0) -> TokenRequests:
        """Requests whose rate is `rate_scale` times as high; raises LLMError."""


@dataclasses.dataclass(frozen=True)
class GeneratedTraffic:
    """Arrivals of one process, for `duration_s` seconds whatever the rate, and lengths by a law.

    process: `gamma`, `pareto`, `mmpp`, `poisson` or `deterministic`, see `synthesize`. A seed at a
    higher rate has the same requests in the same order, closer together, and more of them.
    """

    rate_rps: float
    cv: float = 1.0
    process: str = "gamma"
    duration_s: float = 3600.0
    lengths: TokenLengths = LENGTHS["azure_conversation"]
    is_random = True

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise LLMError(f"process must be one of {', '.join(PROCESSES)}, got {self.process!r}")
        for name in ("rate_rps", "duration_s"):
            if not 0 < getattr(self, name) < np.inf:
                raise LLMError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        self._process(1.0)

    def _process(self, rate_scale: float) -> Process:
        try:
            return PROCESSES[self.process](self.rate_rps * rate_scale, self.cv)
        except ValueError as error:
            raise LLMError(str(error)) from None

    def sample(self, seed: int, rate_scale: float = 1.0) -> TokenRequests:
        process = self._process(rate_scale)
        _require_few(self.rate_rps * rate_scale * self.duration_s)
        (arrival_s,) = sample_arrivals([process], duration_s=self.duration_s, seed=seed)
        return TokenRequests.from_seconds(
            arrival_s, *self.lengths.sample(len(arrival_s), seed=seed)
        )


@dataclasses.dataclass(frozen=True)
class FittedTraffic:
    """Arrivals of a process for every window of a trace (`fit_traffic`), and lengths by a law."""

    fits: Traffic
    lengths: TokenLengths = LENGTHS["azure_conversation"]
    is_random = True

    @property
    def rate_rps(self) -> float:
        return float(self.fits.rate_rps.sum(axis=0).mean())

    def sample(self, seed: int, rate_scale: float = 1.0) -> TokenRequests:
        _require_few(self.fits.rate_rps.sum() * rate_scale * self.fits.window_s)
        drawn = self.fits.scaled(rate=rate_scale).sample(seed=seed)
        start = round(self.fits.start_s * TICKS_PER_SECOND)
        return TokenRequests(drawn.arrival - start, *self.lengths.sample(len(drawn), seed=seed))


@dataclasses.dataclass(frozen=True)
class ReplayedTraffic:
    """Requests that were recorded, the same for every seed; a higher rate plays them faster."""

    requests: TokenRequests
    is_random = False

    def __post_init__(self) -> None:
        if len(self.requests) < 2 or self._span_ns == 0:
            raise LLMError("requests that arrive at two times or more are needed for a rate")

    @property
    def _span_ns(self) -> int:
        return int(self.requests.arrival_ns[-1] - self.requests.arrival_ns[0])

    @property
    def rate_rps(self) -> float:
        return (len(self.requests) - 1) / self._span_ns * 1e9

    def sample(self, seed: int, rate_scale: float = 1.0) -> TokenRequests:
        return self.requests.at_rate(rate_scale)


def _require_few(expected: float) -> None:
    if expected > MOST_REQUESTS:
        raise LLMError(
            f"traffic of some {expected:.3g} requests, at most {MOST_REQUESTS:.3g} are sampled: "
            "a lower rate or a shorter time?"
        )


def trace_tokens(trace: Trace) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Prompt and answer tokens of a trace, int32 [request]; raises LLMError if it has none."""
    if not isinstance(trace, ArrivalTrace) or trace.answer_tokens is None:
        raise LLMError(
            f"{trace.name}: has no prompt and answer tokens, as Azure LLM inference traces have"
        )
    assert trace.prompt_tokens is not None
    return np.asarray(trace.prompt_tokens), np.asarray(trace.answer_tokens)


def lengths_of(trace: Trace) -> TokenLengths:
    """The law of the tokens of a trace; raises LLMError if it has none, or fewer than 100."""
    tokens = trace_tokens(trace)
    try:
        return TokenLengths.fit(*tokens)
    except LLMError as error:
        raise LLMError(f"{trace.name}: {error}") from None


def traffic_of(
    trace: Trace,
    *,
    start: str | None = None,
    end: str | None = None,
    lengths: TokenLengths | None = None,
    replay: bool = False,
    window_s: float | None = None,
    cv_scale: float = 1.0,
) -> TokenTraffic:
    """The traffic of a slice of a trace, all its functions (files, clients) together.

    lengths: the law of tokens; None fits it to those of the trace, which must have them.
    replay: the requests themselves, with the tokens that the trace says, and not seeds of requests
    like them. window_s: of fitted processes; see `beta_jax.replay`, as for `start` and `end`.
    Raises TraceError, LLMError.
    """
    if not isinstance(trace, Trace):
        raise LLMError(
            f"wanted a trace as load_trace reads it, got a {type(trace).__name__}: {trace!r:.60}"
        )
    if not replay:
        fits = fit_traffic(trace, 1, start=start, end=end, window_s=window_s).scaled(cv=cv_scale)
        return FittedTraffic(fits, lengths or lengths_of(trace))
    trace_tokens(trace)  # or it raises
    assert isinstance(trace, ArrivalTrace)
    if lengths is not None or cv_scale != 1:
        raise TraceError(f"{trace.name}: requests that are replayed keep their tokens and gaps")
    start_s, end_s = trace.bounds(start, end)
    arrival_s, _, prompt, answer = trace.between(start_s, end_s)
    assert prompt is not None and answer is not None
    try:
        return ReplayedTraffic(TokenRequests.from_seconds(arrival_s - start_s, prompt, answer))
    except LLMError as error:
        raise LLMError(f"{trace.name}: {error}") from None
