"""Statistics of simulated requests, as the paper reports them (section 6.1)."""

from __future__ import annotations

import numpy as np

from beta_jax.simulator.results import Outcome


def latency_summary(outcome: Outcome, of: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Attainment and latency of the requests of one lane that the warm-up cut leaves.

    of: restricts the requests, a bool mask or slice [request], e.g. to one model or group.
    Returns num_requests, num_good, slo_attainment, and over good requests latency_{mean,std,p50,
    p90,p99}_s (percentiles by linear interpolation); NaN where there are none.
    """
    selected = np.zeros(len(outcome.workload), np.bool_)
    selected[of] = True
    selected[: outcome.counted[0]] = selected[outcome.counted[1] :] = False
    latency = outcome.latency_s[selected & outcome.good]
    total = int(selected.sum())
    quantiles = np.percentile(latency, (50, 90, 99)) if len(latency) else np.full(3, np.nan)
    return {
        "num_requests": total,
        "num_good": len(latency),
        "slo_attainment": len(latency) / total if total else float("nan"),
        "latency_mean_s": float(latency.mean()) if len(latency) else float("nan"),
        "latency_std_s": float(latency.std()) if len(latency) else float("nan"),
        **{f"latency_p{p}_s": float(q) for p, q in zip((50, 90, 99), quantiles, strict=True)},
    }
