"""Differences of steps, which free gossip of its bias."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gmc_jax.core import Tree
from gmc_jax.transforms.parameters import given
from gmc_jax.trees import widen


class DifferencesState(NamedTuple):
    """The state of differences; float32 for 16-bit trees.

    Attributes:
      ahead: x + u of the last update, where this worker would have come alone; differs
        between workers.
    """

    ahead: Tree

    def moved(self, jump: Tree) -> "DifferencesState":
        """What a meeting changes is not for the next step to give back."""
        return DifferencesState(optax.tree.add(self.ahead, jump))


def differences() -> optax.GradientTransformationExtraArgs:
    """Adds to a step what averaging changed about the last one.

        out_t = u_t + (x_t - (x_{t-1} + u_{t-1}))

    In front of `adapt_then_combine(gossip(topology))` that makes D2 in units of steps,
    x_{t+1} = W(2 x_t - x_{t-1} + u_t - u_{t-1}), right under every schedule: what the
    average takes from a worker at one step is given back at the next, so that a worker
    whose own steps do not vanish can still rest where the mean of all steps does.

    Returns:
      A transformation in units of steps, with `DifferencesState`. It reads the
      parameters, so that what else moves them counts as averaging; not so the meetings
      of `periodic`.

    Raises:
      ValueError: from the update if it is called without parameters.

    Guarantees:
      At the first update it changes nothing.
      Where parameters move by exactly what it returns, it returns u_t.

    References:
      Tang, Lian, Yan, Zhang and Liu, "D2: Decentralized Training over Decentralized
      Data", ICML 2018; Yuan, Ying, Zhao and Sayed, "Exact Diffusion", 2019.
    """

    def init(params):
        # A copy: the loop may donate the parameters' own memory.
        return DifferencesState(jax.tree.map(jnp.array, widen(params)))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        steps, here = widen(updates), widen(given("differences", params))
        out = jax.tree.map(lambda u, x, z: u + (x - z), steps, here, state.ahead)
        return out, DifferencesState(optax.tree.add(here, steps))

    return optax.GradientTransformationExtraArgs(init, update)
