"""The baseline of `llm_engines.py`: an engine as a scalar Numba function (development dependency).

What a fast scalar simulator does: the requests that run in a list in order of admission, free
blocks as a number, and steps in which all decode taken at once, as far as the next event.
"""

import numba
import numpy as np

FAR = np.int64(2**62)


@numba.njit
def serve(
    arrival, prompt, end, max_num_seqs, budget, num_blocks, size, step, ttft_limit, tpot_limit
):
    """Good requests, sum of latencies, steps and preemptions of one table; times in picoseconds."""
    base, prefill_token, cached_token, decode = step
    number = len(arrival)
    length, done = prompt.copy(), np.zeros(number, np.int64)
    first = np.zeros(number, np.int64)
    running, stack = np.empty(max_num_seqs, np.int64), np.empty(max_num_seqs, np.int64)
    full_after = np.zeros(size, np.int64)
    n = waiting = upcoming = finished = 0
    good = total = steps = preemptions = 0
    free, now = num_blocks, np.int64(1000)
    while finished < number:
        if n == 0 and waiting == 0:
            now = max(now, arrival[upcoming])
        left, halted, planned = budget, False, 0
        prefill = decodes = cached = 0
        steady, most = True, FAR
        while planned < n and left > 0:
            q = running[planned]
            k = min(length[q] - done[q], left)
            need = (done[q] + k + size - 1) // size - (done[q] + size - 1) // size
            while need > free:
                n -= 1
                victim = running[n]
                free += (done[victim] + size - 1) // size
                done[victim] = 0
                stack[waiting] = victim
                waiting += 1
                preemptions += 1
                halted = True
                if victim == q:
                    break
            if planned >= n:
                break
            free -= need
            left -= k
            steady &= k == 1 and length[q] > prompt[q]
            most = min(most, end[q] - length[q])
            if k == 1:
                decodes += 1
                cached += done[q]
            else:
                prefill += k
            done[q] += k
            planned += 1
        while not halted and left > 0 and n < max_num_seqs:
            if waiting:
                q = stack[waiting - 1]
            elif upcoming < number and arrival[upcoming] <= now:
                q = upcoming
            else:
                break
            if (length[q] + size - 1) // size > free:
                break
            if waiting:
                waiting -= 1
            else:
                upcoming += 1
            k = min(length[q], left)
            free -= (k + size - 1) // size
            left -= k
            steady = False
            running[n] = q
            n += 1
            planned += 1
            if k == 1:
                decodes += 1
            else:
                prefill += k
            done[q] = k
        duration = base + prefill_token * prefill + cached_token * cached + decode * decodes
        m, stop = np.int64(1), FAR
        if waiting == 0 and n < max_num_seqs and upcoming < number and arrival[upcoming] > now:
            stop = arrival[upcoming]
        now += duration
        if steady and not halted:
            full_after[:] = 0
            for i in range(n):
                full_after[-done[running[i]] % size] += 1
            while m < most and now < stop and full_after[(m - 1) % size] <= free:
                free -= full_after[(m - 1) % size]
                duration += cached_token * n
                now += duration
                m += 1
        steps += m
        kept = 0
        for i in range(n):
            q = running[i]
            done[q] += m - 1
            if i < planned and done[q] >= length[q] + m - 1:
                if length[q] == prompt[q]:
                    first[q] = now
                length[q] += m
            if length[q] == end[q]:
                finished += 1
                free += (done[q] + size - 1) // size
                answer, latency, ttft = end[q] - prompt[q], now - arrival[q], first[q] - arrival[q]
                tpot = (latency - ttft) // (answer - 1) if answer > 1 else 0
                good += ttft <= ttft_limit and tpot <= tpot_limit
                total += latency
            else:
                running[kept] = q
                kept += 1
        n = kept
    return good, total, steps, preemptions


def _serve_lanes(arrival, prompt, end, engine, step, limits):
    """arrival, prompt, end: int64 [lane, request]; int64 [lane, 4], as `serve` returns them."""
    served = np.zeros((len(arrival), 4), np.int64)
    max_num_seqs, budget, num_blocks, size = engine
    for lane in numba.prange(len(arrival)):
        good, total, steps, preemptions = serve(
            arrival[lane], prompt[lane], end[lane],
            max_num_seqs, budget, num_blocks, size, step, limits[0], limits[1],
        )  # fmt: skip
        served[lane, 0], served[lane, 1] = good, total
        served[lane, 2], served[lane, 3] = steps, preemptions
    return served


serve_lanes = numba.njit(_serve_lanes)
serve_lanes_parallel = numba.njit(parallel=True)(_serve_lanes)
