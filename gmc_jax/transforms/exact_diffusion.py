"""Exact diffusion, which is D2: a step, an average, and a correction."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gmc_jax.core import Channel, Tree, with_hooks
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.transforms._params import require_params
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import upcast, upcast_floating, zeros_to_accumulate


@with_hooks
class ExactDiffusionState(NamedTuple):
    """The state of exact diffusion; float32 for 16-bit trees.

    Attributes:
      correction: c, the sum of all delta so far: what averages with neighbours changed.
        It differs between workers, and its mean over them is zero.
      channel: the state of the channel.
    """

    correction: Tree
    channel: Tree

    def conserved(self) -> Tree:
        """Every later step adds the correction again."""
        return self.correction, self.channel


@call_repr
def exact_diffusion(channel: Channel) -> optax.GradientTransformationExtraArgs:
    """Takes a step, averages, and adds what the average changed to all later steps.

        y_i = x_i + u_i + c_i
        delta_i = sum over j of W_ij (y_j - y_i)
        x_i <- y_i + delta_i;  c_i <- c_i + delta_i

    It stands last in its chain; u are updates, signed as in optax. It is D2 in units of
    steps, x_{t+1} = W(2 x_t - x_{t-1} + u_t - u_{t-1}), and is correct under every
    schedule. Where the mean of all steps is zero, workers can stay put even if their
    own steps are not zero, since c cancels them.

    c is summed up from the delta_i, and not from what the parameters changed by.
    Parameters are rounded at every step. This rounding would look like a change by
    neighbours, and every later step would add it again.

    Args:
      channel: averages the differences to the neighbours: `disagreement(topology)`.

    Returns:
      A transformation in units of steps, with `ExactDiffusionState`. Parameters differ
      between workers.

    Raises:
      TypeError: if `channel` is not a channel.
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
        step = optax.tree.add(upcast_floating(updates), state.correction)
        end = optax.tree.add(upcast(params), step)
        delta, _, inner = average_in_dtype(channel, end, state.channel, params)
        correction = optax.tree.add(state.correction, delta)
        return optax.tree.add(step, delta), ExactDiffusionState(correction, inner)

    return optax.GradientTransformationExtraArgs(init, update)
