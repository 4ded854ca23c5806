"""Against the code of Overlap-Local-SGD: what it did once, step by step.

It has EASGD, CoCoD-SGD and local SGD with slow momentum beside that method.
tests/support/data/README.md says how its trajectories were recorded.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import cocod_sgd, easgd, exact, overlap_local_sgd, slowmo
from tests.support import harness, problems

FOLDER = pathlib.Path(__file__).parents[1] / "support" / "data"
MOMENTUM = 0.9


@functools.cache
def recordings() -> dict[str, np.ndarray]:
    found = {}
    for name in ("def_trajectories.npz", "overlap_trajectories.npz"):
        with np.load(FOLDER / name) as file:
            found |= dict(file)
    return found


def method(run: str) -> optax.GradientTransformation:
    """The method of a run, with the settings that it was recorded with."""

    def setting(name: str) -> float:
        return recordings()[f"{run}/{name}"].item()

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.asarray(recordings()[f"{run}/rates"])[step]

    inner = optax.sgd(rate, MOMENTUM, nesterov=True)
    period = int(setting("tau"))
    if run.startswith("easgd"):
        centre_rate = setting("alpha") * setting("workers")
        tx = easgd(inner, exact(), period=period, centre_rate=centre_rate)
    elif run.startswith("cocod"):
        tx = cocod_sgd(inner, exact(), period=period)
    elif run.startswith("overlap"):
        tx = overlap_local_sgd(
            inner,
            exact(),
            period=period,
            pull=setting("alpha"),
            anchor_momentum=setting("gmf"),
        )
    else:
        tx = slowmo(
            inner,
            exact(),
            period=period,
            slow_momentum=setting("gmf"),
            learning_rate=rate,
        )
    return optax.chain(optax.add_decayed_weights(setting("decay")), tx)


@pytest.mark.parametrize(
    "run",
    [
        *("easgd", "cocod", "overlap"),
        pytest.param("easgd pair", marks=pytest.mark.slow),
        pytest.param("overlap pair", marks=pytest.mark.slow),
        pytest.param("local", marks=pytest.mark.slow),
        pytest.param("slow momentum", marks=pytest.mark.slow),
    ],
)
def test_the_authors_code_did_the_same(run):
    arrays = recordings()
    expected = arrays[f"{run}/weights"]
    steps, workers = len(expected) - 1, expected.shape[1]
    problem = problems.Problem(
        hessians=arrays["hessians"][:workers].astype(float),
        targets=arrays["targets"][:workers].astype(float),
        noise=arrays["noise"][:steps, :workers].astype(float),
        start=arrays["start"].astype(float),
    )
    with jax.enable_x64(True):
        ours, _ = harness.run(method(run), problem)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
    assert np.ptp(expected[-2], axis=0).max() > 0.01
