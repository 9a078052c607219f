"""What can be swept: how figures and tables call it, and which of its values are hard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Axis(NamedTuple):
    """A field of a scenario as an axis.

    hardest: `min` or `max`: of several values, the one at which it is hardest to meet SLOs.
    better: what is better about sustaining a harder value.
    """

    label: str
    hardest: Callable[[Sequence[float]], float]
    better: str


AXES = {
    "num_devices": Axis("Devices", min, "fewer devices"),
    "memory_gib": Axis("Memory of a device (GiB)", min, "less memory"),
    "load_gib_s": Axis("Load bandwidth of a device (GiB/s)", min, "less bandwidth"),
    "num_models": Axis("Models", max, "more models"),
    "rate_rps": Axis("Total rate (requests/s)", max, "higher rate"),
    "rate_scale": Axis("Rate scale", max, "higher rate"),
    "cv": Axis("CV of the gaps between arrivals", max, "higher CV"),
    "cv_scale": Axis("CV scale", max, "higher CV"),
    "slo_scale": Axis("SLO scale (x single-device latency)", min, "tighter SLO"),
    "duration_s": Axis("Length of the traffic (s)", max, "longer traffic"),
}


def axis(field: str) -> Axis:
    """The axis of a field; of one that is not listed, under its own name."""
    return AXES.get(field, Axis(field, max, f"larger {field}"))
