"""Tests of what a pattern can be worth: coverage and lag, and the verdict on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gmc_jax
from gmc_jax import exact, planning, random_block, top_k
from gmc_jax.core import Compressor
from gmc_jax.costs.candidates import never_meeting
from gmc_jax.costs.planning import DENSE, Pattern, Sync, worth
from gmc_jax.costs.worth import APART, LARGEST, LONGEST, ORDER

LINK = gmc_jax.Link(latency=0.02, bandwidth=12.5e6)


def of(ratio=None, period=1, delay=0, steps=300, **options) -> planning.Worth:
    sync = Sync(exact(), period=period, delay=delay)
    return worth(Pattern("any", (sync,), ratio, **options), steps)


def rank(judged: planning.Worth) -> int:
    return ORDER.index(judged.verdict)


def test_the_dense_mean_sends_every_entry_at_every_step_and_nothing_waits():
    assert worth(DENSE, 300)[:5] == (300, 300, 0, 300, "safe")
    assert worth(DENSE, 1).verdict == "safe"


def test_numbers_by_hand():
    assert of(0.01)[1:4] == (3, 99, 300)
    assert of(None, 12, steps=204)[1:4] == (17, 5.5, 17)
    assert of(0.1, 12, delay=1)[1:4] == (2.5, 114.5, 25)
    assert of(0.5, spread=4.0).lag == 5


def waits(compressor: Compressor, steps: int, d: int) -> tuple[np.ndarray, float]:
    """How often each entry is sent, and how long its changes wait, on average.

    Each step adds independent noise to every entry. Those that are sent take all
    changes since they were last sent with them: the latest has waited for no step.
    """

    def step(carry, keys):
        residual, age, sent, waited = carry
        residual, age = residual + jax.random.normal(keys[0], (d,)), age + 1
        _, lost = compressor.encode(keys[1], residual)
        gone = jnp.where(lost == 0, age, 0)
        kept = lost, age - gone
        return (*kept, sent + (gone > 0), waited + gone * (gone - 1) / 2), None

    keys = jax.random.split(jax.random.key(0), (steps, 2))
    start = (jnp.zeros(d), *(jnp.zeros(d, int) for _ in range(2)), jnp.zeros(d))
    (_, age, sent, waited), _ = jax.lax.scan(step, start, keys)
    return np.asarray(sent), float(waited.sum() / (d * steps - age.sum()))


@pytest.mark.parametrize("ratio", [0.05, pytest.param(0.25, marks=pytest.mark.slow)])
def test_coverage_and_lag_of_random_blocks_by_brute_force(ratio):
    """Blocks are drawn independently of the data and of each other: exact means."""
    sent, lag = waits(random_block(ratio), 3000, 400)
    known = of(ratio, steps=3000)
    assert sent.mean() == pytest.approx(known.coverage, rel=1e-6)
    assert sent.min() > 0.6 * known.coverage
    assert lag == pytest.approx(known.lag, rel=0.07)


@pytest.mark.parametrize("ratio", [0.05, pytest.param(0.25, marks=pytest.mark.slow)])
def test_through_top_k_the_lag_is_a_model_and_a_sixth_too_long_for_noise(ratio):
    """An entry leaves once its random walk is far out, more regularly than by chance.

    The time t at which a Brownian motion leaves an interval has E t^2 = 5/3 (E t)^2, so
    its changes wait for 5/6 of the mean time.
    """
    sent, lag = waits(top_k(ratio), 3000, 400)
    known = of(ratio, steps=3000)
    assert sent.mean() == pytest.approx(known.coverage, rel=1e-6)
    assert 0.72 * known.lag < lag < 0.92 * known.lag


def test_a_change_waits_for_the_next_meeting_by_brute_force():
    """Of 12 steps, the changes of the last wait for none and of the first for 11."""
    assert of(None, 12).lag == np.mean([11 - step for step in range(12)])


ratios = st.floats(1e-4, 1.0)
periods = st.integers(1, 500)
many = st.integers(1, 10**7)
checked = settings(deadline=None, derandomize=True, max_examples=60)


@given(ratios, ratios, periods, periods, many, many)
@checked
def test_more_is_never_worth_less(ratio, other, period, longer, steps, more):
    """A larger ratio, a shorter period, and more steps."""
    less = of(min(ratio, other), max(period, longer), steps=min(steps, more))
    best = of(max(ratio, other), min(period, longer), steps=max(steps, more))
    for one in (
        of(max(ratio, other), max(period, longer), steps=min(steps, more)),
        of(min(ratio, other), min(period, longer), steps=min(steps, more)),
        of(min(ratio, other), max(period, longer), steps=max(steps, more)),
    ):
        assert less.coverage <= one.coverage <= best.coverage
        assert less.lag >= one.lag >= best.lag >= 0
        assert rank(less) >= rank(one) >= rank(best)


@given(ratios, periods, st.integers(0, 50), st.floats(0, 100), many)
@checked
def test_a_delay_and_a_spread_add_their_steps(ratio, period, delay, spread, steps):
    plain = of(ratio, period, steps=steps)
    late = of(ratio, period, delay, steps, spread=spread)
    assert late.lag == pytest.approx(plain.lag + delay + spread)
    assert late.coverage == plain.coverage
    assert rank(late) >= rank(plain)


def largest(ratio: float, steps: int) -> str:
    return of(ratio, steps=steps, selection="largest").verdict


def test_the_rules_at_their_borders():
    assert largest(0.01, round(99 / LARGEST)) == "safe"
    assert largest(0.01, round(99 / LARGEST) - 1) == "aggressive"
    assert of(0.5, steps=10**6).verdict == "aggressive"
    assert of(1.0, steps=10**6).verdict == "safe"
    assert of(0.01, steps=100).verdict == "aggressive"
    assert of(0.01, steps=99).verdict == "as never meeting"
    assert largest(0.01, 99) == "aggressive"
    assert of(None, 12, steps=round(5.5 / APART)).verdict == "safe"
    assert of(None, 12, steps=round(5.5 / APART) - 1).verdict == "aggressive"
    assert of(None, 12, steps=12).verdict == "as never meeting"
    assert of(None, 12, steps=13).verdict == "aggressive"
    assert of(None, 2 * LONGEST + 1, steps=10**6).verdict == "safe"
    assert of(None, 2 * LONGEST + 2, steps=10**6).verdict == "aggressive"
    assert of(caution="it fails")[4:] == ("aggressive", "it fails")


def test_where_workers_hold_different_parameters_less_lag_is_safe():
    assert of(0.1, selection="largest").verdict == "safe"
    assert of(0.1, selection="largest", spread=1e-9).verdict == "aggressive"


def test_a_reason_has_the_numbers():
    assert of(0.01).reason.startswith("news lags 99 steps, 0.33 of the training; ")
    assert "do not meet" in of(None, 400).reason


@pytest.fixture(scope="module")
def planned() -> list[planning.Prediction]:
    return gmc_jax.plan(
        10**5, 4, LINK, 0.2, ratios=[0.01], periods=[30], steps=300, optimizer="adam"
    )


@pytest.mark.slow
def test_a_plan_ranks_by_verdict_and_then_by_seconds(planned):
    places = [(rank(row.worth), row.total) for row in planned]
    assert places == sorted(places)
    assert {place for place, _ in places} == {0, 1, 2}
    for row in planned:
        assert row.total == row.seconds * 300


def test_the_baseline_computes_and_averages_once():
    row, dense = (
        planning.predict(pattern, 10**5, 4, LINK, 0.2, steps=300)
        for pattern in (never_meeting(300, "sgd"), DENSE)
    )
    assert row.total == pytest.approx(300 * 0.2 + dense.network)
    assert row.worth
    assert (row.worth.verdict, row.worth.meetings) == ("as never meeting", 1)
    assert dense.worth
    assert dense.worth.verdict == "safe"


def test_without_steps_nothing_is_judged():
    row = planning.predict(DENSE, 1000, 4, LINK, 0.2)
    assert row.worth is None
    assert row.total is None
    judged = planning.predict(DENSE, 1000, 4, LINK, 0.2, steps=7)
    assert judged.total == 7 * row.seconds


def test_errors_name_what_is_wrong():
    no_pattern: Any = exact()
    with pytest.raises(TypeError, match="`pattern` must be a `Pattern`, got"):
        worth(no_pattern, 300)
    none: Any = "muon"
    for what, call in {
        "`steps` must be a whole": lambda: worth(DENSE, 0),
        "`steps` must be": lambda: gmc_jax.plan(10, 2, LINK, 1, steps=0),
        "`optimizer` must be one of 'sgd', 'adam', got 'muon'": lambda: gmc_jax.plan(
            10, 2, LINK, 1, optimizer=none
        ),
        "`spread` must be": lambda: of(spread=-1.0),
        "`selection` must be 'drawn' or 'largest', got 1": lambda: of(selection=1),
    }.items():
        with pytest.raises(ValueError, match=what):
            call()
    no_text: Any = 3
    with pytest.raises(TypeError, match="`caution` must be text, got 3"):
        of(caution=no_text)
