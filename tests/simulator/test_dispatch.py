"""Dispatch rules of a user's own, in every kernel, against a plain loop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from beta_jax import (
    Cluster,
    Dispatch,
    DispatchRule,
    Group,
    Model,
    Placement,
    Problem,
    Rules,
    Schedule,
    SimulationError,
    Trait,
    Workload,
    place,
    power_of_two,
    simulate,
)
from beta_jax.dispatch import RULES, _splitmix64

import documents
import reference
from instances import CONFIGS, Instance, instances, make_profile, mixed_problem

relaxed = settings(max_examples=12)
STICKY = documents.run("docs/extending.md", "A dispatch rule")["STICKY"]
LATEST_FINISH = DispatchRule("latest_finish", order=lambda groups: 2**45 - groups.finish())
COUNTING = DispatchRule(
    "every_other",  # the first and the last group by turns
    order=lambda groups: (
        groups.index * (1 - groups.memory % 2)
        + (groups.num_groups - groups.index) * (groups.memory % 2)
    ),
    after=lambda memory, index: memory + 1,
)
# The same in Python: the key of a group, from (now, group, clock, finish, memory).
PLAIN: dict[DispatchRule, Callable[..., Any]] = {
    STICKY: lambda t, g, clock, finish, last: 0 if g == last and clock <= t else clock,
    LATEST_FINISH: lambda t, g, clock, finish, _: -finish,
    COUNTING: lambda t, g, clock, finish, count: -g if count % 2 else g,
}


def oracle(instance: Instance, rule: DispatchRule) -> tuple[list[bool], list[int]]:
    """Which requests are served, and by which group."""
    problem, _, workload = instance
    slo = [reference.duration_ticks(model.slo_s) for model in problem.models]
    overhead = round(problem.rules.request_overhead_s * reference.TICKS_PER_SECOND)
    schedule = instance.schedule(instance.groups)
    arrival, model = workload.arrival.tolist(), workload.model.tolist()
    serving = reference.serving_segment(arrival, [start for start, _ in schedule])
    good, sent, current = [], [], -1
    for t, m, segment in zip(arrival, model, serving, strict=True):
        if segment != current:
            current, groups = segment, schedule[segment][1]
            clocks = [[0] * len(next(iter(group.values()), ())) for group in groups]
            memory = [rule.initial] * len(slo)
        hosts = [g for g, group in enumerate(groups) if m in group]
        if not hosts:
            good.append(False)
            sent.append(-1)
            continue
        ends = {g: reference.run_stages(t, groups[g][m], clocks[g]) for g in hosts}
        key = PLAIN[rule]
        _, g = min((key(t, h, clocks[h][-1], ends[h][-1], memory[m]), h) for h in hosts)
        if rule.after is not None:
            memory[m] = rule.after(memory[m], g)
        good.append(ends[g][-1] + overhead - t <= slo[m])
        sent.append(g)
        if good[-1]:
            clocks[g] = ends[g]
    return good, sent


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("rule", PLAIN, ids=str)
@given(instance=instances())
@relaxed
def test_a_rule_of_ones_own_in_every_kernel(rule: DispatchRule, instance: Instance):
    rules = dataclasses.replace(instance.problem.rules, dispatch=rule)
    instance = instance._replace(problem=dataclasses.replace(instance.problem, rules=rules))
    (outcome,) = simulate(*instance, outputs="requests")
    good, sent = oracle(instance, rule)
    assert outcome.good.tolist() == good
    assert outcome.group.tolist() == sent


@given(instance=instances())
@relaxed
def test_a_published_rule_written_anew_is_the_same(instance: Instance):
    """Without `by_clock`, which is a shortcut."""
    anew = DispatchRule("anew", order=lambda groups: groups.clock)
    problem = dataclasses.replace(instance.problem, rules=Rules(dispatch=anew))
    published = dataclasses.replace(problem, rules=Rules())
    for a, b in zip(
        simulate(problem, *instance[1:], outputs="requests"),
        simulate(published, *instance[1:], outputs="requests"),
        strict=True,
    ):
        np.testing.assert_array_equal(a.finish, b.finish)
        np.testing.assert_array_equal(a.group, b.group)


def test_names_and_rules_agree():
    assert [*RULES] == [*Dispatch]
    assert [rule.name for rule in RULES.values()] == [*Dispatch]
    assert Rules(dispatch="round_robin").rule is RULES[Dispatch.ROUND_ROBIN]
    assert Rules(dispatch=STICKY).rule is STICKY and str(STICKY) == "sticky"


def test_what_a_rule_does_not_declare_is_not_relied_on():
    assert Trait.LOCAL in Rules().traits() and Trait.LOCAL in Rules(dispatch=STICKY).traits()
    assert Trait.LOCAL not in Rules(dispatch=COUNTING).traits()
    assert Trait.AT_ARRIVAL in Rules(dispatch=COUNTING).traits()


def test_draws_are_those_of_splitmix64():
    """Known outputs for seed 1234567, of which the first is that of index 1."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert _splitmix64(1234567, np.arange(1, 5)).view(np.uint64).tolist() == known


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
def test_every_seed_has_draws_of_its_own_in_every_segment(seed: int):
    """Hosts 1, 3 and 4 of 5, where nothing is ever served, so that draws alone decide."""
    problem = mixed_problem(slo_s=0.01)
    hosting = tuple(Group(CONFIGS[0], (0,) if g in (1, 3, 4) else (1,)) for g in range(5))
    placement = Placement(hosting)
    workload = Workload(np.arange(40) * 10**8, np.zeros(40))
    ruled = dataclasses.replace(problem, rules=Rules(dispatch=power_of_two(seed)))
    schedule = Schedule((0.0, 1.55, 1.65), (placement,) * 3)
    whole, parts = simulate(ruled, [placement, schedule], workload, outputs="requests")
    expected = [(1, 3, 4)[min(reference.draws(i, 3, seed))] for i in range(40)]
    assert whole.group.tolist() == parts.group.tolist() == expected
    assert power_of_two(seed) is power_of_two(seed)
    assert str(power_of_two(seed)) == ("power_of_two" if seed == 0 else f"power_of_two-{seed}")


def backlog(slo_s: float, rule: str | DispatchRule, requests: int):
    """Requests at once for two groups of which each takes a second for one."""
    profile = make_profile({"t": {CONFIGS[0]: [1.0]}})
    problem = Problem((Model("m", "t", slo_s),), Cluster(2), profile, Rules(rule, 0.0, 0.0))
    workload = Workload(np.zeros(requests), np.zeros(requests))
    return problem, Placement((Group(CONFIGS[0], (0,)),) * 2), workload


@pytest.mark.usefixtures("kernel")
def test_queues_without_a_deadline_have_a_bound_that_is_named():
    short = dataclasses.replace(RULES[Dispatch.SHORTEST_QUEUE], max_unfinished=4)
    for outputs in ("tally", "requests"):
        simulate(*backlog(math.inf, short, 8), outputs=outputs)
        with pytest.raises(SimulationError, match="shortest_queue: more than 4 unfinished"):
            simulate(*backlog(math.inf, short, 9), outputs=outputs)
        simulate(*backlog(math.inf, "shortest_queue", 128), outputs=outputs)
        with pytest.raises(SimulationError, match="more than 64 unfinished"):
            simulate(*backlog(math.inf, "shortest_queue", 129), outputs=outputs)


@pytest.mark.usefixtures("kernel")
def test_a_finite_slo_bounds_queues_itself():
    """However many requests come at once, as many as can end in time wait."""
    short = dataclasses.replace(RULES[Dispatch.SHORTEST_QUEUE], max_unfinished=4)
    tally = simulate(*backlog(100.0, short, 300))
    assert tally.group_good.tolist() == [[100, 100]]


def test_searches_say_so_too():
    short = dataclasses.replace(RULES[Dispatch.SHORTEST_QUEUE], max_unfinished=4)
    problem, _, workload = backlog(math.inf, short, 40)
    for policy in ("sr-greedy", "mp-search", "exhaustive", "local-search"):
        with pytest.raises(SimulationError, match="more than 4 unfinished"):
            place(policy, problem, workload)


@pytest.mark.usefixtures("kernel")
def test_a_rule_that_counts_says_so():
    counting = DispatchRule("shortest", order=lambda groups: groups.unfinished())
    with pytest.raises(ValueError, match="declares max_unfinished"):
        simulate(*backlog(1.0, counting, 3))


@given(instance=instances(tuple(Dispatch)))
@relaxed
def test_with_one_host_all_rules_are_one(instance: Instance):
    problem, _, workload = instance
    hosts = Placement(tuple(Group(config, (m,)) for m, config in enumerate(CONFIGS[:3])))
    published = dataclasses.replace(problem.rules, dispatch="earliest_free")
    problems = [problem, dataclasses.replace(problem, rules=published)]
    own, other = simulate(problems, hosts, workload, outputs="requests")
    np.testing.assert_array_equal(own.finish, other.finish)
    np.testing.assert_array_equal(own.group, other.group)


@pytest.mark.usefixtures("kernel")
def test_what_ends_as_a_request_arrives_does_not_queue():
    """One waits for each group then, and the first group is free earlier."""
    profile = make_profile({"t": {CONFIGS[0]: [1.0]}, "slow": {CONFIGS[0]: [2.5]}})
    models = Model("m", "t", 9.0), Model("slow", "slow", 9.0)
    problem = Problem(models, Cluster(2), profile, Rules("shortest_queue", 0.0, 0.0))
    placement = Placement((Group(CONFIGS[0], (0,)), Group(CONFIGS[0], (0, 1))))
    for last_s, group in ((1.0, 0), (1.0 - 1e-9, 1)):
        workload = Workload.from_seconds([0, 0, 0, last_s], [1, 0, 0, 0])
        (outcome,) = simulate(problem, placement, workload, outputs="requests")
        assert outcome.group.tolist() == [1, 0, 0, group]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"order": lambda groups: groups.clock / 2}, "rule r: order must give whole numbers"),
        (
            {"order": lambda groups: groups.clock, "after": lambda memory, index: index * 0.5},
            "rule r: after must give whole numbers, it gives float64",
        ),
    ],
)
def test_keys_that_are_no_whole_numbers_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        DispatchRule("r", **rule)
