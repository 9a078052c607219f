"""Rules of the scheduler that no published run shows, each by a case small enough for pencil."""

from __future__ import annotations

import numpy as np

from beta_jax.llm import Engine, LinearStepTime, Outcome, Prefixes, TokenRequests, simulate

from llm_runs import reference, require_equal

Row = tuple[int, int, int]  # arrival_ns, prompt, answer
Shared = tuple[int, int]  # parent, blocks


def serve(
    rows: list[Row],
    shared: list[Shared] | None = None,
    *,
    seqs: int = 8,
    budget: int = 100,
    blocks: int = 100,
    step_ps: tuple[int, int, int, int] = (1000, 0, 0, 0),
) -> Outcome:
    """By blocks of two tokens; a step takes 1 ns if nothing else is said, and the first begins at 1
    ns."""
    arrival, prompt, answer = np.array(rows).T
    prefixes = None
    if shared is not None:
        parent, common = np.array(shared).T
        prefixes = Prefixes((prompt + answer) // 2, parent, common)
    requests = TokenRequests(arrival, prompt, answer, prefixes)
    engine = Engine(seqs, budget, blocks, LinearStepTime(*step_ps), 2, prefixes is not None)
    outcome = simulate(requests, engine)
    require_equal(outcome, reference(requests, engine), 1)
    return outcome


NONE = (-1, 0)


def test_nobody_is_admitted_in_a_step_that_takes_a_request_back():
    # The second computes the fourth block of the first, too. When the first has it as well, the
    # second holds one block more than it needs if it is admitted anew; so as soon as it is taken
    # back, in step 3, there is room for it. It waits for step 4.
    outcome = serve([(0, 6, 4), (0, 9, 4)], [NONE, (0, 4)], blocks=7)
    assert outcome.runs(0) == [(0, 3)]
    assert outcome.runs(1) == [(0, 2), (4, 4)]
    assert (outcome.preemptions, outcome.recomputed_tokens) == (1, 2)


def test_at_least_one_token_of_a_prompt_is_computed():
    # Two blocks are the same, but only one is taken over, or nothing would be left to compute.
    outcome = serve([(0, 4, 1), (0, 4, 1)], [NONE, (0, 2)], step_ps=(1000, 100, 0, 0))
    assert outcome.blocks.tolist() == [3]
    assert outcome.step_end_ps.tolist() == [1000 + 1000 + 100 * (4 + 2)]


def test_free_blocks_that_are_found_count_as_needed():
    # The last needs three blocks, two of which are there, but free: as many as are free altogether.
    outcome = serve([(0, 4, 1), (0, 3, 3), (2, 6, 1)], [NONE, NONE, (0, 2)], blocks=4)
    assert outcome.runs(1) == [(0, 2)]
    assert outcome.runs(2) == [(3, 3)]


def test_of_two_blocks_with_the_same_content_the_later_is_found():
    # 0 and 1 each compute the second block of the same content. The fourth takes the block of 0;
    # the last finds that of 1, and computes a single token.
    outcome = serve(
        [(0, 4, 1), (0, 4, 1), (0, 1, 2), (9, 4, 1), (9, 5, 1)],
        [NONE, (0, 2), NONE, NONE, (0, 2)],
        blocks=5,
        step_ps=(1000, 1000, 0, 0),
    )
    assert outcome.step_end_ps.tolist() == [8000, 9000, 14000]


def test_a_last_token_of_a_prompt_counts_as_a_decode():
    outcome = serve([(0, 4, 1)], budget=3, step_ps=(1000, 100, 10, 1))
    assert np.diff(outcome.step_end_ps, prepend=1000).tolist() == [1300, 1031]
    assert outcome.queue_delay_ps.tolist() == [1000 + 1300]  # its last part decides


def test_an_idle_engine_starts_with_the_next_arrival():
    outcome = serve([(0, 3, 2), (1_000_000, 3, 1)])
    assert outcome.queue_delay_ps.tolist() == [1000, 0]
    assert outcome.step_end_ps.tolist() == [2000, 3000, 1_000_001_000]


def test_a_single_token_has_no_time_between_tokens():
    outcome = serve([(5, 3, 1), (5, 3, 3)])
    assert outcome.tpot_ps.tolist() == [0, 1000]
    assert outcome.latency_ps.tolist() == [1000, 3000]
    assert outcome.ttft_ps.tolist() == [1000, 1000]


def test_running_requests_leave_what_a_prompt_is_given():
    # Parts of the second: 1 beside the rest of the first, then 2, then 1 beside its decodes.
    outcome = serve([(0, 5, 3), (0, 4, 1)], budget=3)
    assert outcome.runs(0) == [(1, 3)]
    assert outcome.runs(1) == [(3, 3)]
    # Three decodes leave nothing of a budget of 3 for the fourth, until one of them ends.
    outcome = serve([(0, 1, 2), (0, 1, 4), (0, 1, 4), (1, 4, 1)], budget=3)
    assert outcome.runs(3) == [(4, 4)]


def test_admission_asks_for_the_whole_prompt():
    # Four blocks are free, and the first part of the second needs one of them only.
    outcome = serve([(0, 3, 4), (0, 9, 1)], budget=4, blocks=6)
    assert outcome.runs(0) == [(0, 3)]
    assert outcome.runs(1) == [(6, 6)]


def test_steady_decoding_is_one_call():
    outcome = serve([(0, 7, 1000)], blocks=1000)
    assert (outcome.calls, outcome.steps) == (2, 1000)
    assert outcome.token_times_ps(0).tolist() == [1000 * step for step in range(2, 1002)]
    assert outcome.blocks.tolist() == [-(-(7 + step) // 2) for step in range(1000)]


def test_decoding_stops_where_it_makes_room_for_the_first_that_waits():
    # What waits lacks one block at step 2. In step 3 the other fills its third block, which both
    # have in common, and one less is needed.
    outcome = serve([(0, 3, 6), (3, 10, 1)], [NONE, (0, 4)], blocks=5)
    assert outcome.runs(0) == [(0, 5)]
    assert outcome.runs(1) == [(3, 3)]


def test_the_last_to_fill_a_block_is_found_even_within_a_stretch():
    # In one stretch the second fills its third block, then the first one the same block. The second
    # ends, and the third takes the blocks that it leaves; the last finds that of the first.
    outcome = serve(
        [(0, 3, 8), (0, 4, 5), (6, 4, 1), (6, 7, 1)], [NONE, (0, 4), NONE, (0, 3)], blocks=7
    )
    assert outcome.runs(1) == [(0, 4)]
    assert outcome.runs(2) == [(5, 5)]
    assert outcome.runs(3) == [(5, 5)]
