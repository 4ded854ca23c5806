"""Steps, a correction, and averages: exact diffusion, which is D2."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.transforms._params import require_params
from gmc_jax.utils import checks
from gmc_jax.utils.described import described
from gmc_jax.utils.trees import upcast, upcast_floating, zeros_to_accumulate


@with_hooks
class ExactDiffusionState(NamedTuple):
    """The state of exact diffusion; float32 for 16-bit trees.

    Attributes:
      correction: c, the sum of all that neighbours have changed so far; differs between
        workers, and is zero in the mean.
      channel: the state of the channel.
    """

    correction: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """What neighbours changed is given back ever after."""
        return self.correction, self.channel


@described
def exact_diffusion(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Each worker steps, all average, and what that changed is given back ever after.

        y_i = x_i + u_i + c_i
        delta_i = sum over j of W_ij (y_j - y_i)
        x_i <- y_i + delta_i;  c_i <- c_i + delta_i

    The last in its chain; u are updates, signed as optax has them. It is D2 in units of
    steps, x_{t+1} = W(2 x_t - x_{t-1} + u_t - u_{t-1}), right under every schedule: a
    worker whose own steps do not vanish can still rest where the mean of all steps
    does, since c takes them up.

    c is summed from differences between workers, and not read off the parameters: these
    round at every step, and their rounding would be taken for what neighbours changed
    and be given back for ever.

    Args:
      channel: what compares with the neighbours: `disagreement(topology)`.

    Returns:
      A transformation in units of steps, with `ExactDiffusionState`. Parameters differ
      between workers.

    Raises:
      TypeError: if `channel` is no channel.
      ValueError: from the update if it is called without parameters.

    Guarantees:
      The mean over workers of c stays zero, and that of x moves by the mean of u.

    References:
      Tang, Lian, Yan, Zhang and Liu, "D2: Decentralized Training over Decentralized
      Data", ICML 2018; Yuan, Ying, Zhao and Sayed, "Exact Diffusion", 2019.
    """
    checks.channel(channel=channel)

    def init(params):
        return ExactDiffusionState(zeros_to_accumulate(params), channel.init(params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = require_params("exact_diffusion", params)
        owed = optax.tree.add(upcast_floating(updates), state.correction)
        ahead = optax.tree.add(upcast(params), owed)
        delta, _, inner = average_in_dtype(channel, ahead, state.channel, params)
        correction = optax.tree.add(state.correction, delta)
        return optax.tree.add(owed, delta), ExactDiffusionState(correction, inner)

    return optax.GradientTransformationExtraArgs(init, update)
