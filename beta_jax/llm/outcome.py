"""What became of requests and of their engine."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from beta_jax.llm.requests import PS_PER_S, TokenRequests

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """Every token of every request, in picoseconds on the clock of the arrivals.

    queue_delay_ps, ttft_ps, tpot_ps, latency_ps: int64 [request]. Until the last part of the prompt
    is planned; until the first token; between tokens from then on, rounded down, 0 for a single
    token; until the last token.

    step_begin_ps, step_end_ps: int64 [step]. An engine runs a step at a time.
    running, blocks: int32 [step], requests that run and blocks they hold during a step.
    first_step, last_step: int32 [run of steps], the steps of tokens, one with the end of each;
    those of request r are the runs run_offsets[r] to run_offsets[r + 1].

    stay_request: int32 [stay], stay_begin_ps, stay_end_ps: int64 [stay], by admission. From when a
    request is admitted until it is taken back or has ended.

    preemptions: requests taken back for want of blocks; recomputed_tokens: of these what was
    computed anew; calls: of the scheduler, where steady decoding counts once.
    """

    requests: TokenRequests
    queue_delay_ps: Ints
    ttft_ps: Ints
    tpot_ps: Ints
    latency_ps: Ints
    step_begin_ps: Ints
    step_end_ps: Ints
    running: NDArray[np.int32]
    blocks: NDArray[np.int32]
    first_step: NDArray[np.int32]
    last_step: NDArray[np.int32]
    run_offsets: Ints
    stay_request: NDArray[np.int32]
    stay_begin_ps: Ints
    stay_end_ps: Ints
    preemptions: int
    recomputed_tokens: int
    calls: int

    @property
    def steps(self) -> int:
        return len(self.step_end_ps)

    @property
    def queue_delay_s(self) -> NDArray[np.float64]:
        return self.queue_delay_ps / PS_PER_S

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        return self.ttft_ps / PS_PER_S

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        return self.tpot_ps / PS_PER_S

    @property
    def latency_s(self) -> NDArray[np.float64]:
        return self.latency_ps / PS_PER_S

    def runs(self, request: int) -> list[tuple[int, int]]:
        """First and last step of each run of steps that gave the request a token each."""
        own = slice(*self.run_offsets[request : request + 2])
        return [*zip(self.first_step[own].tolist(), self.last_step[own].tolist(), strict=True)]

    def token_times_ps(self, request: int) -> Ints:
        """When each token of the request came, int64 [output token]."""
        return np.concatenate(
            [self.step_end_ps[first : last + 1] for first, last in self.runs(request)]
        )
