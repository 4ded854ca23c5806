"""What every method keeps of each worker, and that all ways to run it agree.

One table of all methods: a new one adds a line, which says which arrays differ between
workers. The same numbers must come out of `simulate`, `distribute` and `jax.pmap`.
"""

import functools
import pathlib

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    exact,
    random_block,
    scaled_sign,
    simulated_server,
    top_k,
    topologies,
)
from tests.support import problems
from tests.support.harness import (
    RUNNERS,
    WORKERS,
    close,
    drive,
    pmap,
    pull,
    start,
    step_of,
    targets,
)

RATE, STEPS = 0.1, 5
TOP, BLOCK = all_gather(top_k(0.2)), all_reduce(random_block(0.2))
EXACT, ONE_PEER = exact(), topologies.one_peer_exponential(8)
RESET = all_reduce(random_block(0.4), seed=1)
SIGNS = all_gather(scaled_sign(), per_leaf=True)

# Each method, and what differs between workers: fields of the states in its chain.
METHODS = {
    "dmsgd": (gmc_jax.dmsgd(RATE, TOP), set()),
    "dmsgd_local": (gmc_jax.dmsgd_local(RATE, TOP), {"0.trace"}),
    "ef_sgd": (gmc_jax.ef_sgd(RATE, TOP), {"1.residual"}),
    "ef_momentum": (gmc_jax.ef_momentum(RATE, BLOCK), {"0.trace", "2.residual"}),
    "gmc": (gmc_jax.gmc(RATE, TOP), {"0.inner.residual"}),
    "gmc_plus": (gmc_jax.gmc_plus(RATE, BLOCK), {"0.inner.inner.residual"}),
    "gmc_server_momentum": (gmc_jax.gmc_server_momentum(RATE, TOP), {"0.residual"}),
    "gmc_rate_inside": (gmc_jax.gmc_rate_inside(RATE, BLOCK), {"1.inner.residual"}),
    "dgc": (gmc_jax.dgc(RATE, TOP), {"0.momentum", "0.feedback.residual"}),
    "def_sgd": (gmc_jax.def_sgd(RATE, BLOCK), {"0.trace", "2.inner.residual"}),
    "def_a": (
        gmc_jax.def_a(RATE, BLOCK),
        {"inner.0.trace", "inner.2.inner.residual"},
    ),
    "saef": (
        gmc_jax.saef(RATE, TOP, period=2),
        {"0.trace", "2.inner.inner.residual"},
    ),
    "cser": (
        gmc_jax.cser(RATE, BLOCK, RESET, period=2),
        {"params", "0.trace", "2.error"},
    ),
    "local_sgd": (
        gmc_jax.local_sgd(RATE, BLOCK, period=2, momentum=0.9),
        {"params", "inner.0.trace"},
    ),
    "post_local_sgd": (
        gmc_jax.post_local_sgd(RATE, EXACT, local_from_step=2, period=3),
        {"params"},
    ),
    "double_averaging": (
        gmc_jax.double_averaging(RATE, EXACT, EXACT, period=2),
        {"params", "inner.0.trace"},
    ),
    "slowmo": (
        gmc_jax.slowmo(optax.sgd(RATE), EXACT, period=2, learning_rate=RATE),
        {"params"},
    ),
    "bmuf": (gmc_jax.bmuf(optax.sgd(RATE), TOP, period=2), {"params"}),
    "lookahead": (
        gmc_jax.lookahead(optax.sgd(RATE), gmc_jax.no_communication(), period=2),
        {"params", "anchor"},
    ),
    "diloco": (
        gmc_jax.diloco(optax.adamw(RATE), EXACT, period=2),
        {"params", "inner.0.mu", "inner.0.nu"},
    ),
    "d_psgd": (gmc_jax.d_psgd(RATE, ONE_PEER, momentum=0.9), {"params", "0.0.trace"}),
    "d2": (
        gmc_jax.d2(RATE, topologies.lazy(topologies.ring(8))),
        {"params", "1.correction"},
    ),
    "gradient_tracking": (
        gmc_jax.gradient_tracking(RATE, topologies.ring(8)),
        {"params", "0.tracker", "0.last"},
    ),
    "sgp": (
        gmc_jax.sgp(RATE, ONE_PEER, delay=1),
        {"params", "1.weight", "1.channel.in_flight.0.0", "1.channel.in_flight.0.1"},
    ),
    "sign_sgd": (gmc_jax.sign_sgd(RATE, gmc_jax.majority_vote()), set()),
    "signum": (gmc_jax.signum(RATE, gmc_jax.majority_vote()), {"0.ema"}),
    "ef_sign_sgd": (gmc_jax.ef_sign_sgd(RATE), {"1.residual"}),
    "dist_ef_sgdm": (
        gmc_jax.dist_ef_sgdm(
            RATE, SIGNS, simulated_server(scaled_sign(), per_leaf=True)
        ),
        {"0.trace", "2.residual"},
    ),
}

every_method = pytest.mark.parametrize("method", METHODS)


def seen(step):
    """The step, whose metrics tell the parameters that the worker saw."""

    def and_params(state, batch):
        new, metrics = step(state, batch)
        return new, {"params": state[0], **metrics}

    return and_params


@functools.cache
def step_and_state(method: str):
    tx, _ = METHODS[method]
    return seen(step_of(tx, pull)), (start(), tx.init(start()))


def test_every_method_has_a_line():
    files = pathlib.Path(gmc_jax.__file__).parent.glob("methods/*.py")
    # Event by event on one device; or, in their own files, of two gradients a step.
    others = {"a_psgd", "ad_psgd", "asynchronous", "svrg", "katyusha_x"}
    assert {file.stem for file in files} - {"__init__"} == set(METHODS) | others


@every_method
def test_what_differs_between_workers(method):
    step, state = step_and_state(method)
    batch = jax.tree.map(lambda b: b[0], targets(start(), 1))
    plan = gmc_jax.layout(step, state, batch, WORKERS)

    def name(path) -> str:
        keys = [str(getattr(key, "name", getattr(key, "idx", ""))) for key in path]
        part = keys.pop(0)
        return "params" if part == "0" else ".".join(filter(None, keys))

    leaves = jax.tree_util.tree_leaves_with_path(plan.differs)
    assert {name(path) for path, differs in leaves if differs} == METHODS[method][1]


# Of pieces that others below are made of too.
RELATED = {
    "dmsgd",
    "dmsgd_local",
    "ef_momentum",
    "def_a",
    "ef_sgd",
    "gmc_server_momentum",
    "gmc_rate_inside",
    "def_sgd",
    "saef",
    "post_local_sgd",
    "double_averaging",
    "bmuf",
    "lookahead",
    "diloco",
    "sign_sgd",
}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=pytest.mark.slow if method in RELATED else ())
        for method in METHODS
    ],
)
def test_simulate_distribute_and_pmap_agree(method):
    step, state = step_and_state(method)
    batches = targets(start(), STEPS)
    results = [
        drive(runner, step, state, batches) for runner in [*RUNNERS.values(), pmap]
    ]
    for other in results[1:]:
        close(results[0], other)

    # Something has happened; and workers saw the same parameters, or were meant not to.
    params = problems.flat(results[0][1]["params"], leading=2)
    assert np.abs(params[-1] - params[0]).max() > 0.01
    same = (params == params[:, :1]).all()
    assert same == ("params" not in METHODS[method][1])
