"""What shortcuts rely on, declared: a bound that prunes a winner would be the worst of defects."""

from __future__ import annotations

import enum


class Trait(enum.Flag):
    """What shortcuts rely on. Rules that lack one are simulated and searched the slow, exact way.

    Declared by `DispatchRule.traits` for dispatch; `Rules.traits` tells those of all rules together
    for given workloads.
    """

    NONE = 0
    LOCAL = enum.auto()
    """What happens to a request depends on the groups that host its model, and on earlier requests
    for models that these host; on nothing else, such as how many others there are. So placements
    fall apart into parts that share no model: what `fill.incremental`, the request filter of
    `fill.greedy` and the adding up of shares in `published.branch` rely on."""
    AT_ARRIVAL = enum.auto()
    """Where a request goes, whether it is served and when it finishes is decided when it arrives,
    from earlier requests alone: what `analysis` retraces, and bounds by simulation rely on."""
    ONE_BY_ONE = enum.auto()
    """A stage works on one request at a time, so that work at batch size 1 bounds all work."""
    WORK_BY_MODEL = enum.auto()
    """All requests of a model take equally long on a group: none has its own `Workload.work`. With
    `AT_ARRIVAL`, one clock says all about a group that hosts models of one type
    (`Lane.num_clocks`)."""
