"""Tests of arrays read whole and of decisions for all processes, in one process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import fetch
from gmc_jax.utils.multihost import map_over_processes, on_first_process
from tests.support.harness import devices


def test_arrays_are_fetched_whole():
    mesh = Mesh(devices(4, 2), ("workers", "model"))

    def placed(array, *spec):
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))

    fetched = fetch(
        {
            "replicated": placed(jnp.array([1.0, 2.0])),
            "each worker's own": placed(jnp.arange(4.0), "workers"),
            "spread over all": placed(jnp.arange(8.0), ("workers", "model")),
            "key": placed(jax.random.key(0)),
            "bfloat16": placed(jnp.ones(1, jnp.bfloat16)),
            "no size": placed(jnp.zeros((0, 3))),
            "number": 4,
            "None": None,
        }
    )
    assert fetched.pop("None") is None
    assert {type(leaf) for leaf in fetched.values()} == {np.ndarray}
    np.testing.assert_array_equal(fetched["replicated"], [1, 2])
    np.testing.assert_array_equal(fetched["each worker's own"], np.arange(4))
    np.testing.assert_array_equal(fetched["spread over all"], np.arange(8))
    np.testing.assert_array_equal(fetched["key"], jax.random.PRNGKey(0))
    assert fetched["bfloat16"].dtype == jnp.bfloat16
    assert fetched["number"] == 4
    assert fetched["no size"].shape == (0, 3)


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_fetched_arrays_survive_further_training(runner):
    def step(state, batch):
        params, own = state
        return (params.at[0].add(1), own.at[0].add(batch[0])), {"own": batch * 2}

    state = jnp.zeros(64), jnp.zeros(64)
    batch = np.tile(np.arange(8, dtype=np.float32)[:, None], 64)
    if runner == "simulate":
        train, state = gmc_jax.simulate(step, state, batch, 8)
    else:
        train, state = gmc_jax.distribute(step, state, batch)
    state, metrics = train(state, batch)
    params, own = fetched = fetch(state)
    for _ in range(3):
        state, _ = train(state, batch)

    assert params.tolist() == [1] + 63 * [0]
    np.testing.assert_array_equal(own[:, 0], np.arange(8))
    np.testing.assert_array_equal(fetch(metrics)["own"], 2 * batch)
    assert fetch(state)[0][0] == 4
    assert {type(leaf) for leaf in fetched} == {np.ndarray}


def test_one_process_decides_by_itself():
    """Errors come through as they are, and items are worked on in their order."""
    assert on_first_process(lambda: {"kept": [1, 2]}) == {"kept": [1, 2]}

    def fail():
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        on_first_process(fail)
    assert map_over_processes(len, ["a", "", "abc"]) == [1, 0, 3]
    assert map_over_processes(len, []) == []
