"""Table 1 of the paper: what a request takes, and a model's weights."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row, batch size 1; devices: of the shortest pipeline that holds the weights."""

    latency_s: float
    weights_gb: float
    devices: int = 1


TABLE_1 = {
    "bert-1.3b": Published(0.151, 2.4),
    "bert-2.6b": Published(0.238, 5.4),
    "bert-6.7b": Published(0.395, 13.4),
    "bert-103.5b": Published(4.6, 208, 16),
    "moe-1.3b": Published(0.150, 2.6),
    "moe-2.4b": Published(0.171, 4.8),
    "moe-5.3b": Published(0.234, 10.6),
}
