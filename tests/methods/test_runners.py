"""What every method keeps for each worker, and that all runners agree.

The same numbers come out of `simulate`, `distribute` and `jax.pmap`.
"""

import functools

import jax
import numpy as np
import pytest

import gmc_jax
from tests.support import problems
from tests.support.harness import (
    ALL_RUNNERS,
    WORKERS,
    close,
    drive,
    pmap,
    pull,
    simulate,
    start,
    step_of,
    targets,
)
from tests.support.methods import METHODS

STEPS = 5

every_method = pytest.mark.parametrize("method", METHODS)


def seen(step):
    """The step, with the worker's parameters among its metrics."""

    def and_params(state, batch):
        new, metrics = step(state, batch)
        return new, {"params": state[0], **metrics}

    return and_params


@functools.cache
def step_and_state(method: str):
    tx = METHODS[method].tx
    return seen(step_of(tx, pull)), (start(), tx.init(start()))


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
    found = {name(path) for path, differs in leaves if differs}
    assert found == METHODS[method].differs


# Methods whose parts are those of others in the table.
RELATED = {
    "dmsgd",
    "dmsgd_local",
    "ef_momentum",
    "def_a",
    "detached_optimizer",
    "ef_sgd",
    "gmc_server_momentum",
    "gmc_rate_inside",
    "def_sgd",
    "saef",
    "post_local_sgd",
    "qsparse_local_sgd",
    "double_averaging",
    "bmuf",
    "lookahead",
    "diloco",
    "muloco",
    "overlap_local_sgd",
    "streaming_diloco",
    "qg_dsgdm",
    "dcd_psgd",
    "matcha",
    "double_squeeze",
    "easgd",
    "ef21",
    "sparse_loco",
    "sign_sgd",
    "distributed_lion",
    "ternary_sgd",
}


@pytest.mark.parametrize(
    ("method", "other"),
    [
        pytest.param(
            method,
            runner,
            marks=pytest.mark.slow if method in RELATED or runner is pmap else (),
            id=f"{method}-{name}",
        )
        for method in METHODS
        for name, runner in ALL_RUNNERS.items()
        if runner is not simulate and not (runner is pmap and method in RELATED)
    ],
)
def test_all_runners_agree(method, other):
    step, state = step_and_state(method)
    batches = targets(start(), STEPS)
    ours, theirs = (drive(runner, step, state, batches) for runner in (simulate, other))
    close(ours, theirs)

    # Parameters moved, and were the same on all workers unless the table says not.
    params = problems.flat(ours[1]["params"], leading=2)
    assert np.abs(params[-1] - params[0]).max() > 0.01
    same = (params == params[:, :1]).all()
    assert same == ("params" not in METHODS[method].differs)
