"""The channel that sends nothing and loses everything."""

from __future__ import annotations

from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark, no_communication_mark
from gmc_jax.utils.trees import upcast, zeros_to_accumulate


@call_repr
def drop_all(*, axis_name: str = "workers") -> Channel:
    """Sends nothing: the mean is zero, and all of the tree is lost.

    As the channel of `partial_sync` it leaves all communication to the resets.

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel without state and without collectives.

    Raises:
      TypeError: from `init` and `average` if a leaf is not floating.

    Guarantees:
      The law of channels; `mean` is zero, and `lost` is the tree.
    """
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return ()

    def average(tree, state):
        checks.floating(tree)
        mean = mark(zeros_to_accumulate(tree), no_communication_mark(axis_name))
        return mean, upcast(tree), state

    def nothing(tree: Tree) -> int:
        del tree
        return 0

    return Channel(init, average, nothing, axis_name, nothing)
