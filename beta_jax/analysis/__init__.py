"""Analysis: what simulated requests say: latencies, utilisation, stage times, misses, intervals."""
