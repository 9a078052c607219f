"""What queueing theory says about such a system: waits, latencies, SLO attainment, break-evens.

    beta_jax.queueing.md1_wait_s(rate_rps=1.5, service_s=0.4)      # 0.3 s

Rates are requests/s, times seconds, loads and utilisations plain numbers; waits exclude service.
Arguments are numbers or arrays that broadcast against each other, results are float64 arrays.
All may be used under `jit` and `vmap`; `num_servers` is a Python int. Outside of them bad input (a
rate that is not > 0, a negative time, a utilisation of 1 or more where there is then no steady
state) raises ValueError. Inside them no value is known yet, so the same elements are NaN instead:
never infinite, never a negative wait.

A group that serves one model type behaves as one server (Beta, OSDI 2023, section 3.4): a request
occupies it for the longest stage, `bottleneck_s`, and is done `latency_s`, the sum of the stages,
after its start. So one device is `bottleneck_s == latency_s`, and a pipeline waits as M/D/1 does
whose service takes `bottleneck_s`.

References: Erlang (1917), "Solution of some problems in the theory of probabilities of significance
in automatic telephone exchanges". Crommelin (1932), "Delay probability formulae when the holding
times are constant". Pollaczek (1930), Khinchine (1932): the mean wait of M/G/1. Spitzer (1956), "A
combinatorial lemma and its application to probability theory". Bailey (1954), "On queueing
processes with bulk service". Kingman (1962), "Some inequalities
for the queue GI/G/1". Takacs (1967), "Combinatorial Methods in the Theory of Stochastic Processes".
Franx (2001), "A simple solution for the M/D/c waiting time distribution". Gross and others,
"Fundamentals of Queueing Theory", 4th ed.
"""

from __future__ import annotations

import functools

from beta_jax import backend  # noqa: F401 - sets up JAX, so it comes first

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import gammainc
from jax.typing import ArrayLike

from beta_jax.checks import floats, require_whole
from beta_jax.types import TICKS_PER_SECOND

Array = jax.Array
Check = tuple[Array, str, Array]
"""Which elements are valid, what has to hold of them, and the elements."""

MAX_SERVICE_TIMES = 1024
"""How far waits of M/D/1 are known, in service times."""
MAX_SERVERS = 2**16
"""Of one queue."""
MAX_LOAD = 500.0
"""Highest offered load of a queue with deadlines: exp(load) has to be a float64."""
HUGE = 1e300
SERIES_TERMS = 256
"""Terms of Spitzer's series, used where that many are enough for float64."""


def mm1_wait_s(rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """Mean wait with exponential service times of mean `service_s`: M/M/1."""
    return mg1_wait_s(rate_rps, service_s, 1.0)


def md1_wait_s(rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """Mean wait where every service takes `service_s`: M/D/1."""
    return mg1_wait_s(rate_rps, service_s, 0.0)


def mg1_wait_s(rate_rps: ArrayLike, service_s: ArrayLike, service_cv: ArrayLike) -> Array:
    """Mean wait of M/G/1 (Pollaczek and Khinchine): `rate E[S^2] / (2 (1 - utilisation))`.

    service_cv: coefficient of variation of the service times, standard deviation over mean.
    """
    rate, service, cv = _floats(rate_rps=rate_rps, service_s=service_s, service_cv=service_cv)
    busy = rate * service
    wait = rate * service**2 * (1 + cv**2) / (2 * (1 - busy))
    return _valid(wait, *_queue_checks(rate, service, busy), _not_negative("service CV", cv))


def kingman_bound_s(
    rate_rps: ArrayLike, service_s: ArrayLike, arrival_cv: ArrayLike, service_cv: ArrayLike
) -> Array:
    """Upper bound of the mean wait of GI/G/1 (Kingman 1962), sharp as the utilisation nears 1.

    `rate (Var[gap] + Var[service]) / (2 (1 - utilisation))`, from the coefficients of variation of
    the independent gaps between arrivals and service times.
    """
    rate, service, gaps, services = _floats(
        rate_rps=rate_rps, service_s=service_s, arrival_cv=arrival_cv, service_cv=service_cv
    )
    busy = rate * service
    bound = rate * ((gaps / rate) ** 2 + (services * service) ** 2) / (2 * (1 - busy))
    return _valid(
        bound,
        *_queue_checks(rate, service, busy),
        _not_negative("arrival CV", gaps),
        _not_negative("service CV", services),
    )


def erlang_b(num_servers: int, load: ArrayLike) -> Array:
    """Probability that M/M/c/c, without a queue, turns an arrival away (Erlang 1917).

    load: offered load `rate_rps * service_s`, in servers; it may exceed their number. Holds for any
    service times of that mean.
    """
    (load,) = _floats(load=load)
    return _valid(_blocked(_servers(num_servers), load), _positive("load", load))


@functools.partial(jax.jit, static_argnums=0)
def _blocked(num_servers: int, load: Array) -> Array:
    def add_server(i: Array, blocked: Array) -> Array:
        return load * blocked / (i + load * blocked)

    return lax.fori_loop(1, num_servers + 1, add_server, jnp.ones_like(load))


def erlang_c(num_servers: int, load: ArrayLike) -> Array:
    """Probability that an arrival has to wait in M/M/c (Erlang 1917); load: see `erlang_b`."""
    (load,) = _floats(load=load)
    busy = load / _servers(num_servers)
    blocked = _blocked(num_servers, load)
    waits = blocked / (1 - busy * (1 - blocked))
    return _valid(waits, _positive("load", load), _below_one(busy))


def mmc_wait_s(num_servers: int, rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """Mean wait of M/M/c: exponential service times, `num_servers` servers, one queue."""
    rate, service = _floats(rate_rps=rate_rps, service_s=service_s)
    busy = rate * service / _servers(num_servers)
    checks = _queue_checks(rate, service, busy)
    blocked = _blocked(num_servers, rate * service)
    waits = blocked / (1 - busy * (1 - blocked))
    return _valid(waits * service / (num_servers * (1 - busy)), *checks)


def mdc_wait_s(num_servers: int, rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """Mean wait of M/D/c: every service takes `service_s`, `num_servers` servers, one queue.

    The requests present every `service_s` form Crommelin's chain: those beyond c stay, and a
    Poisson number arrives. Where its mean is small, Spitzer's series of positive terms gives it to
    full relative precision; where that converges slowly, the zeros of its generating function do.
    """
    rate, service = _floats(rate_rps=rate_rps, service_s=service_s)
    load = rate * service
    checks = _queue_checks(rate, service, load / _servers(num_servers))
    return _valid(_crommelin_queue(num_servers, load) / rate, *checks)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jnp.vectorize, excluded=(0,))
def _crommelin_queue(num_servers: int, load: Array) -> Array:
    """Mean of Q in `Q' = max(Q + Poisson(load) - num_servers, 0)`: requests that wait."""
    busy = load / num_servers
    i = jnp.arange(1.0, SERIES_TERMS + 1)
    mean, freed = i * load, i * num_servers  # E[max(Poisson(mean) - freed, 0)] / i, summed over i
    series = (mean * gammainc(freed, mean) - freed * gammainc(freed + 1, mean)) / i
    decay = num_servers * (busy - 1 - jnp.log(busy))  # terms fall at least as exp(-decay i)

    # The zeros z of z^c = exp(load (z - 1)) inside the unit circle, other than 1.
    unit = jnp.exp(2j * jnp.pi * jnp.arange(1, num_servers) / num_servers)

    def newton(_: int, z: Array) -> Array:
        target = unit * jnp.exp(busy * (z - 1))
        return z - (z - target) / (1 - busy * target)

    zeros = lax.fori_loop(0, 40, newton, 0.5 * unit)
    variable = (num_servers * (num_servers - 1) - load**2) / (2 * (num_servers - load))
    by_zeros = jnp.sum(1 / (1 - zeros)).real - variable
    return jnp.where(decay * SERIES_TERMS > 45, series.sum(), by_zeros)


def md1_pairs_latency_s(rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """Mean latency where a free server takes two requests at once, or one that waits alone.

    Either takes `service_s`, and the load is below 2: bulk service (Bailey 1954). A service that
    ends leaves Q requests, of which the next one, or the next arrival, leaves max(Q - 2, 0) and a
    Poisson number: Crommelin's chain of two servers. By its generating function Q is 0 with
    probability `(2 - load) w / (1 + w)`, where -w is the zero of z^2 = exp(load (z - 1)) between -1
    and 0. Then an idle time precedes the service, in which nothing waits; the rest is Little's law.
    """
    rate, service = _floats(rate_rps=rate_rps, service_s=service_s)
    load = rate * service
    checks = _queue_checks(rate, service, load / 2)

    def newton(_: int, w: Array) -> Array:
        target = jnp.exp(-load / 2 * (1 + w))
        return w + (target - w) / (1 + load / 2 * target)

    w = lax.fori_loop(0, 20, newton, jnp.zeros_like(load))
    idle = (2 - load) * w / (1 + w) / rate
    waiting = (_crommelin_queue(2, load) + load / 2) * service / (service + idle)
    return _valid(waiting / rate + service, *checks)


def md1_wait_cdf(wait_s: ArrayLike, rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """Probability that an arrival waits at most `wait_s` in M/D/1.

    At most `MAX_SERVICE_TIMES` times `service_s`, else ValueError (or NaN).
    """
    wait, rate, service = _floats(wait_s=wait_s, rate_rps=rate_rps, service_s=service_s)
    load, x = rate * service, wait / service
    return _valid(
        jnp.minimum((1 - load) * _growth(load, x), 1.0),
        *_queue_checks(rate, service, load),
        _not_negative("wait", wait),
        _at_most("wait in service times", x, MAX_SERVICE_TIMES),
    )


def md1_wait_quantile_s(probability: ArrayLike, rate_rps: ArrayLike, service_s: ArrayLike) -> Array:
    """The wait that an arrival in M/D/1 exceeds with 1 - `probability`; 0 where most do not wait.

    ValueError (or NaN) where it is more than `MAX_SERVICE_TIMES` times `service_s`.
    """
    probability, rate, service = _floats(
        probability=probability, rate_rps=rate_rps, service_s=service_s
    )
    load = rate * service
    checks = [
        *_queue_checks(rate, service, load),
        ((probability >= 0) & (probability < 1), "the probability must be in [0, 1)", probability),
    ]
    _valid(probability, *checks)
    x = _growth_inverse(load, probability / (1 - load))
    return _valid(x * service, *checks, _at_most("quantile in service times", x, MAX_SERVICE_TIMES))


def deadline_attainment(
    rate_rps: ArrayLike,
    slo_s: ArrayLike,
    latency_s: ArrayLike,
    bottleneck_s: ArrayLike | None = None,
) -> Array:
    """SLO attainment of one model on one group that turns away who would be late, exactly.

    Poisson arrivals; a request is admitted iff it will be done within `slo_s`, which the group
    knows at its arrival. Valid below and above saturation. bottleneck_s: the longest stage; none:
    there is one. With H as in `_growth` and the longest acceptable wait t = slo - latency, what is
    admitted is the share H(t) / (1 + rate bottleneck H(t)): while the unfinished work is below t it
    evolves as in M/D/1 without deadlines, which fixes its law there up to a factor, and work that
    is added equals work that is done. A difference of less than half a simulated tick is 0.

    ValueError (or NaN) for a wait of more than `MAX_SERVICE_TIMES` times the bottleneck, and for a
    load `rate_rps * bottleneck_s` above `MAX_LOAD`.
    """
    rate, slo, latency, bottleneck = _floats(
        rate_rps=rate_rps,
        slo_s=slo_s,
        latency_s=latency_s,
        bottleneck_s=latency_s if bottleneck_s is None else bottleneck_s,
    )
    slack = slo - latency
    slack = jnp.where(jnp.abs(slack) * TICKS_PER_SECOND < 0.5, 0.0, slack)
    load, x = rate * bottleneck, slack / bottleneck
    at_all = 1 / (1 / _growth(load, jnp.maximum(x, 0.0)) + load)
    return _valid(
        jnp.where(slack < 0, 0.0, at_all),
        _positive("rate", rate),
        _positive("SLO", slo),
        *_stage_checks(latency, bottleneck),
        _at_most("load", load, MAX_LOAD),
        _at_most("SLO minus latency, in service times,", x, MAX_SERVICE_TIMES),
    )


def pipeline_latency_s(
    rate_rps: ArrayLike, latency_s: ArrayLike, bottleneck_s: ArrayLike | None = None
) -> Array:
    """Mean latency of models of one type that share a group, without deadlines.

    `latency_s` plus the wait of M/D/1 with service `bottleneck_s`; none: one stage.
    """
    rate, latency, bottleneck = _floats(
        rate_rps=rate_rps,
        latency_s=latency_s,
        bottleneck_s=latency_s if bottleneck_s is None else bottleneck_s,
    )
    busy = rate * bottleneck
    wait = bottleneck * busy / (2 * (1 - busy))
    return _valid(
        latency + wait,
        *_queue_checks(rate, bottleneck, busy),
        *_stage_checks(latency, bottleneck),
    )


def simple_latency_s(rate_rps: ArrayLike, service_s: ArrayLike, share: ArrayLike = 0.5) -> Array:
    """Mean latency of two models with a device each: the paper's simple placement.

    rate_rps: of both together, of which `share` goes to the first, inside (0, 1).
    """
    rate, service, share = _floats(rate_rps=rate_rps, service_s=service_s, share=share)
    inside = (share > 0) & (share < 1), "the share must be inside (0, 1)", share
    rate = _valid(rate, _positive("rate", rate), inside)
    first = pipeline_latency_s(share * rate, service)
    second = pipeline_latency_s((1 - share) * rate, service)
    return share * first + (1 - share) * second


def break_even_alpha(load: ArrayLike) -> Array:
    """The communication overhead at which pooling two devices no longer shortens the mean latency.

    load: of two models together, `rate_rps * service_s`, inside (0, 2). Both stages of the shared
    pipeline take `alpha service_s / 2`; the result is the alpha at which `pipeline_latency_s` is
    `simple_latency_s` (Beta, OSDI 2023, section 3.4, figure 10): the lesser root of a quadratic.
    """
    (load,) = _floats(load=load)
    simple = 1 + load / (4 - 2 * load)
    half = 4 + 2 * load * simple
    alpha = 8 * simple / (half + jnp.sqrt(half**2 - 24 * load * simple))
    return _valid(alpha, _of_two_devices(load))


def break_even_beta(load: ArrayLike) -> Array:
    """The imbalance at which pooling two devices no longer shortens the mean latency.

    As `break_even_alpha`, but the stages take `service_s` together and the longer one
    `beta service_s / 2`.
    """
    (load,) = _floats(load=load)
    return _valid(4 / (load + jnp.sqrt(load**2 + 4 * (2 - load))), _of_two_devices(load))


def burst_latency_s(
    num_requests: ArrayLike, latency_s: ArrayLike, bottleneck_s: ArrayLike | None = None
) -> Array:
    """Mean latency of `num_requests` that arrive at once at an idle group of one model type."""
    count, latency, bottleneck = _floats(
        num_requests=num_requests,
        latency_s=latency_s,
        bottleneck_s=latency_s if bottleneck_s is None else bottleneck_s,
    )
    return _valid(
        latency + (count - 1) / 2 * bottleneck,
        (count >= 1, "a burst must have at least one request", count),
        _positive("number of requests", count),
        *_stage_checks(latency, bottleneck),
    )


@functools.partial(jnp.vectorize, signature="()->(n)")
def _growth_table(load: Array) -> Array:
    """H(0), H(D), H(2 D), ..., float64 [`MAX_SERVICE_TIMES` + 2], capped at `HUGE`.

    H(n D) is the probability of at most n requests in the system over that of none. They come from
    the balance of flow across each level of the chain at departures, whose terms are all positive,
    so that no digits are lost; the chain of an overloaded queue is transient, the balance holds.
    """
    size = MAX_SERVICE_TIMES + 1
    j = jnp.arange(size + 1)
    arrivals = jnp.cumprod(jnp.where(j == 0, 1.0, load / jnp.maximum(j, 1)))  # P(j) / P(0)
    more = jnp.cumsum(arrivals[:0:-1])[::-1]  # [n]: more than n arrive during a service
    backwards = jnp.concatenate([more[::-1], jnp.zeros(size)])  # [size - 1 - n]

    def next_level(level: Array, present: Array) -> Array:
        # From i >= 1 present to above `level`: more than level + 1 - i arrive.
        jumps = lax.dynamic_slice(backwards, (size - 1 - level,), (size,))
        up = more[level] + jnp.dot(present[1:], jumps)
        return present.at[level + 1].set(jnp.minimum(up, HUGE))

    present = lax.fori_loop(0, size, next_level, jnp.zeros(size + 1).at[0].set(1.0))
    return jnp.minimum(jnp.cumsum(present), HUGE)


@functools.partial(jnp.vectorize, signature="(n),(),()->()")
def _interpolate(table: Array, load: Array, x: Array) -> Array:
    """H(x) from its table (Franx 2001): within `ahead` of x the request k - j leaves, j arrive."""
    k = jnp.floor(jnp.minimum(x, MAX_SERVICE_TIMES)).astype(int) + 1
    ahead = load * (k - x)
    j = jnp.arange(len(table) - 1)
    arrivals = jnp.exp(-ahead) * jnp.cumprod(jnp.where(j == 0, 1.0, ahead / jnp.maximum(j, 1)))
    return jnp.sum(jnp.where(j < k, table[jnp.maximum(k - j, 0)] * arrivals, 0.0))


@jax.jit
def _growth(load: Array, x: Array) -> Array:
    """H(x) of M/D/1: `1 - load` times it is the probability of a wait of at most x service times.

    H(x) = sum over j <= x of exp(load (x - j)) (-load (x - j))**j / j! (Takacs 1967), which is
    defined for any load, but alternates in sign: 16 digits are lost by x = 20. See `_growth_table`.
    """
    return _interpolate(_growth_table(load), load, x)


@jax.jit
@jnp.vectorize
def _growth_inverse(load: Array, value: Array) -> Array:
    """The least x with H(x) >= value, by bisection; infinite beyond the table."""
    table = _growth_table(load)
    above = jnp.searchsorted(table, value)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = _interpolate(table, load, middle) >= value
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    _, x = lax.fori_loop(0, 60, halve, (above - 1.0, above.astype(float)))
    return jnp.where(value <= 1, 0.0, jnp.where(above > MAX_SERVICE_TIMES, jnp.inf, x))


def _floats(**values: ArrayLike) -> list[Array]:
    """Each as float64. Raises ValueError for what is no number, or does not broadcast."""
    found = [
        jnp.asarray(v if isinstance(v, Array) else floats(name, v), jnp.float64)
        for name, v in values.items()
    ]
    try:
        np.broadcast_shapes(*(value.shape for value in found))
    except ValueError:
        shapes = ", ".join(f"{name} {v.shape}" for name, v in zip(values, found, strict=True))
        raise ValueError(f"shapes do not broadcast: {shapes}") from None
    return found


def _servers(number: int) -> int:
    require_whole("num_servers", number, 1, MAX_SERVERS)
    return int(number)


def _valid(value: Array, *checks: Check) -> Array:
    """The value where all checks pass and NaN elsewhere; ValueError where that can be known."""
    for passed, must, checked in checks:
        if not isinstance(passed, jax.core.Tracer) and not np.all(passed):
            wrong = np.broadcast_to(checked, passed.shape)[~np.asarray(passed)]
            raise ValueError(f"{must}, got {wrong[0]:.6g}")
        value = jnp.where(passed, value, jnp.nan)
    return value


def _positive(name: str, value: Array) -> Check:
    return (value > 0) & (value < jnp.inf), f"the {name} must be > 0 and finite", value


def _not_negative(name: str, value: Array) -> Check:
    return (value >= 0) & (value < jnp.inf), f"the {name} must be >= 0 and finite", value


def _at_most(name: str, value: Array, limit: float) -> Check:
    return value <= limit, f"the {name} must be at most {limit:g}", value


def _below_one(busy: Array) -> Check:
    return busy < 1, "the utilisation must be < 1 or there is no steady state", busy


def _queue_checks(rate: Array, service: Array, busy: Array) -> tuple[Check, ...]:
    return _positive("rate", rate), _positive("service time", service), _below_one(busy)


def _stage_checks(latency: Array, bottleneck: Array) -> tuple[Check, ...]:
    longest = latency >= bottleneck, "the latency must be at least the bottleneck's", latency
    return _positive("bottleneck's time", bottleneck), longest, _positive("latency", latency)


def _of_two_devices(load: Array) -> Check:
    return (load > 0) & (load < 2), "the load of two devices must be inside (0, 2)", load
