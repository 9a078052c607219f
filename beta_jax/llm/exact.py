"""One engine on the host, token by token: exact with prefix reuse, by tables or the linear model.

The rules are those of vLLM's V1 scheduler as a published simulator states them (`docs/llm.md`). A
scheduler call plans a step: running requests first, in the order of their admission, then those
that wait. Where a step does nothing but decode, those that follow are the same up to the next
event, and are evaluated at once: no token comes at another time than step by step.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from beta_jax.llm.blocks import Counted, Held, Named, Pool, contents
from beta_jax.llm.engine import Engine
from beta_jax.llm.outcome import Outcome
from beta_jax.llm.requests import PS_PER_NS, LLMError, TokenRequests
from beta_jax.llm.shapes import StepShape

MOST_STEPS = 4096
"""Evaluated at once."""
LONGEST_STEP_PS, LATEST_PS = 2**50, 2**61
"""18 minutes, and 26 days."""


def simulate(requests: TokenRequests, engine: Engine) -> Outcome:
    """Serve `requests` by one engine, from the first arrival to the last token.

    Raises LLMError if a request can never fit, or a step takes more than 18 minutes.
    """
    engine.require_room(requests)
    run = _Run(requests, engine)
    while run.unfinished:
        run.call()
    return run.outcome()


class _Sequence:
    """A request and how far it is."""

    __slots__ = (
        *("arrival", "done", "end", "fresh", "held", "latency", "length", "prompt"),
        *("number", "queue_delay", "runs", "stay", "taken_back", "ttft"),
    )

    def __init__(self, number: int, arrival: int, prompt: int, answer: int, held: Held) -> None:
        self.number, self.stay = number, 0
        self.arrival, self.prompt, self.end = arrival, prompt, prompt + answer
        self.length, self.done = prompt, 0
        """Tokens reached, and those of them whose keys and values are there."""
        self.fresh, self.taken_back = True, False
        self.held = held
        self.queue_delay = self.ttft = self.latency = 0
        self.runs: list[list[int]] = []


class _Run:
    def __init__(self, requests: TokenRequests, engine: Engine) -> None:
        self.requests, self.engine = requests, engine
        reuse = engine.prefix_caching and requests.prefixes is not None
        pool = Named if reuse else Counted
        self.pool: Pool = pool(engine.num_blocks, engine.block_size)
        self.sequences = [
            _Sequence(number, arrival * PS_PER_NS, prompt, answer, Held(content))
            for number, arrival, prompt, answer, content in zip(
                range(len(requests)),
                requests.arrival_ns.tolist(),
                requests.input_tokens.tolist(),
                requests.output_tokens.tolist(),
                contents(requests.prefixes if reuse else None, len(requests)),
                strict=True,
            )
        ]
        self.unfinished = len(requests)
        self.arrived = 0
        self.waiting = deque[_Sequence]()
        self.running: list[_Sequence] = []
        self.now = PS_PER_NS
        self.budget = 0
        """What the plan leaves."""
        self.halted = False
        """Whether a request is taken back in the step that is planned."""
        self.preemptions = self.recomputed = self.calls = self.steps = 0
        self.stays: list[list[int]] = []
        self.log: list[tuple[int, NDArray[np.int64], int, NDArray[np.int64]]] = []

    def call(self) -> None:
        if not self.running and not self.waiting:
            self.now = max(self.now, self.sequences[self.arrived].arrival)
        while self.arrived < len(self.sequences):
            if self.sequences[self.arrived].arrival > self.now:
                break
            self.waiting.append(self.sequences[self.arrived])
            self.arrived += 1
        plan = self._plan()
        if len(plan):
            self._serve(plan)

    def _plan(self) -> list[tuple[_Sequence, int, int]]:
        """Who is given how many tokens after how many cached ones, in the next step."""
        pool, running, waiting = self.pool, self.running, self.waiting
        budget = self.engine.max_num_batched_tokens
        plan: list[tuple[_Sequence, int, int]] = []
        self.halted = False
        while len(plan) < len(running) and budget:
            q = running[len(plan)]
            k = min(q.length - q.done, budget)
            while q.done + k > q.held.room and not pool.grow(q.held, q.done + k):
                victim = running.pop()
                pool.release(victim.held)
                victim.done, victim.taken_back = 0, True
                self.stays[victim.stay][2] = self.now
                waiting.appendleft(victim)
                self.preemptions += 1
                self.halted = True
                if victim is q:
                    break
            else:
                plan.append((q, k, q.done))
                budget -= k
        size = self.engine.block_size
        while waiting and budget and not self.halted and len(running) < self.engine.max_num_seqs:
            q = waiting[0]
            hit, idle = pool.find(q.held, q.length)
            # All that it has reached must fit, even if only a part is computed now.
            if -(-q.length // size) - len(hit) + idle > pool.free:
                break
            base = size * len(hit)
            k = min(q.length - base, budget)
            running.append(waiting.popleft())
            q.stay = len(self.stays)
            self.stays.append([q.number, self.now, 0])
            pool.grow(q.held, base + k, hit)
            self.recomputed += q.taken_back * (q.length - base)
            plan.append((q, k, base))
            budget -= k
        self.budget = budget
        return plan

    def _serve(self, plan: list[tuple[_Sequence, int, int]]) -> None:
        """Run the step that is planned, and those like it that follow."""
        begin, first = self.now, self.steps
        ends, blocks = self._ends(plan)
        steps = len(ends)
        self.calls += 1
        self.steps += steps
        self.log.append((begin, ends, len(self.running), blocks))
        self.now = int(ends[-1])
        finished = False
        for q, k, base in plan:
            if q.fresh:
                q.queue_delay = begin - q.arrival
            q.done = base + k
            if q.done < q.length:
                continue
            if q.fresh:
                q.fresh = False
                q.ttft = self.now - q.arrival
            if q.runs and q.runs[-1][1] == first - 1:
                q.runs[-1][1] += steps
            else:
                q.runs.append([first, first + steps - 1])
            q.done += steps - 1
            q.length += steps
            if q.length == q.end:
                q.latency = self.now - q.arrival
                self.stays[q.stay][2] = self.now
                self.pool.release(q.held)
                self.unfinished -= 1
                finished = True
        if finished:
            self.running = [q for q in self.running if q.length < q.end]

    def _ends(
        self, plan: list[tuple[_Sequence, int, int]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """When steps end, and the blocks held in each; the pool is as in the last of them."""
        cached = [base for _, k, base in plan if k == 1]
        prefills = [(k, base) for _, k, base in plan if k > 1]
        shape = StepShape(
            requests=len(plan),
            prefill_tokens=sum(k for k, _ in prefills),
            prefill_cached=sum(base for _, base in prefills),
            decodes=len(cached),
            cached=sum(cached),
            most_cached=max(cached, default=0),
            least_cached=min(cached, default=0),
        )
        held = self.engine.num_blocks - self.pool.free
        takes = self._steady(plan) if not prefills and not self.halted else np.zeros(0, np.int64)
        duration = self._checked(np.array([self.engine.step_time.step_ps(shape)], np.int64))
        if len(takes):
            steps = shape.decoding_on(len(takes) + 1)
            duration = self._checked(self.engine.step_time.step_ps(steps))
        ends = self.now + duration.cumsum()
        if len(takes) and self._admits() and not self.waiting:
            if self.arrived < len(self.sequences):
                arrival = self.sequences[self.arrived].arrival
                ends = ends[: np.searchsorted(ends, arrival) + 1]
            takes = takes[: len(ends) - 1]
        if len(takes):
            done = [base + 1 for base in cached]
            self.pool.decode([q.held for q, _, _ in plan], done, len(takes))
        return ends, held + np.concatenate([[0], takes.cumsum()])

    def _admits(self) -> bool:
        """Whether one more request could run, if it had blocks."""
        return self.budget > 0 and len(self.running) < self.engine.max_num_seqs

    def _steady(self, plan: list[tuple[_Sequence, int, int]]) -> NDArray[np.int64]:
        """Blocks that are taken in each step that follows and is like this one, of decodes only."""
        steps = min(q.end - q.length for q, _, _ in plan) - 1
        if len(plan) < len(self.running) or steps < 1:
            return np.zeros(0, np.int64)
        if any(q.fresh or base + 1 < q.length for q, _, base in plan):
            return np.zeros(0, np.int64)
        size = self.engine.block_size
        if self.waiting and self._admits():
            # The first that waits lacks blocks, until one that runs indexes a block of its prefix.
            head = self.waiting[0]
            theirs = head.held.content[: (head.length - 1) // size]
            for q, _, base in plan:
                at = (base + 1) // size
                own = q.held.content
                if at < min(len(own), len(theirs)) and own[at] == theirs[at]:
                    steps = min(steps, (at + 1) * size - (base + 1) - 1)
        steps = min(steps, MOST_STEPS - 1)
        phase = [-(base + 1) % size for _, _, base in plan]
        takes = np.resize(np.bincount(phase, minlength=size), max(steps, 0))
        return takes[: np.searchsorted(takes.cumsum(), self.pool.free, "right")]

    def _checked(self, duration: NDArray[np.int64]) -> NDArray[np.int64]:
        if not (duration.min() > 0 and duration.max() <= LONGEST_STEP_PS) or self.now > LATEST_PS:
            raise LLMError(
                f"a step at {self.now / 1e12:.6g} s takes {duration.max() / 1e12:.6g} s: "
                "too long to count in picoseconds"
            )
        return duration

    def outcome(self) -> Outcome:
        def per_request(name: str) -> NDArray[np.int64]:
            return np.array([getattr(q, name) for q in self.sequences], np.int64)

        ttft, latency = per_request("ttft"), per_request("latency")
        after_first = np.maximum(self.requests.output_tokens.astype(np.int64) - 1, 1)
        runs = np.array([each for q in self.sequences for each in q.runs], np.int32).reshape(-1, 2)
        ends = np.concatenate([np.zeros(0, np.int64), *(ends for _, ends, _, _ in self.log)])
        begins = np.concatenate([ends[:0], *(np.append(b, e[:-1]) for b, e, _, _ in self.log)])
        stays = np.array(self.stays, np.int64).reshape(-1, 3)
        return Outcome(
            requests=self.requests,
            queue_delay_ps=per_request("queue_delay"),
            ttft_ps=ttft,
            tpot_ps=(latency - ttft) // after_first,
            latency_ps=latency,
            step_begin_ps=begins,
            step_end_ps=ends,
            running=np.repeat(
                [n for _, _, n, _ in self.log], [len(e) for _, e, _, _ in self.log]
            ).astype(np.int32),
            blocks=np.concatenate([ends[:0], *(held for *_, held in self.log)]).astype(np.int32),
            first_step=runs[:, 0],
            last_step=runs[:, 1],
            run_offsets=np.cumsum([0, *(len(q.runs) for q in self.sequences)]),
            stay_request=stays[:, 0].astype(np.int32),
            stay_begin_ps=stays[:, 1],
            stay_end_ps=stays[:, 2],
            preemptions=self.preemptions,
            recomputed_tokens=self.recomputed,
            calls=self.calls,
        )
