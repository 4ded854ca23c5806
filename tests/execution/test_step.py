"""What a step returns: the new state and metrics, or words that say what it did."""

import jax.numpy as jnp
import pytest

import gmc_jax
from tests.support.harness import WORKERS, every_runner

PAIR = {"w": jnp.zeros(3)}, jnp.zeros(3)
BATCH = jnp.zeros((WORKERS, 3))


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (lambda state: None, "got nothing"),
        (lambda state: state, "got the state alone"),
        (lambda state: (state, {}, 0.0), "got a tuple of 3"),
        (lambda state: (state,), "got a tuple of 1"),
        (lambda state: [state, {}], "got a `list`"),
        (lambda state: state[1], "got a `DynamicJaxprTracer`"),
    ],
)
@every_runner
def test_a_wrong_result_of_a_step_is_described(returns, said, runner):
    """The kind: errors in the words of those who unpack, not of those who wrote it."""
    message = rf"tuple of two, the new state and metrics, {said}\. End it with"
    with pytest.raises(ValueError, match=message) as caught:
        runner(lambda state, batch: returns(state), PAIR, BATCH)
    assert len(str(caught.value).split("\n")[0]) < 250


@pytest.mark.parametrize("state", [jnp.zeros(3), PAIR, [1, 2, 3]])
def test_a_state_without_metrics_is_recognised(state):
    with pytest.raises(ValueError, match="got the state alone"):
        gmc_jax.layout(lambda state, batch: state, state, BATCH, WORKERS)


def test_a_state_of_another_structure_is_named_by_its_first_difference():
    """And not by two structures of a screen each."""
    state = {f"layer {number}": jnp.zeros(3) for number in range(100)}

    def step(state, batch):
        return {**state, "layer 50": (state["layer 50"], batch)}, {}

    message = r"`state\['layer 50'\]` must be float32\[3\], got a tuple of 2\."
    with pytest.raises(ValueError, match=message) as caught:
        gmc_jax.layout(step, state, BATCH, WORKERS)
    assert len(str(caught.value).split("\n")[0]) < 250
