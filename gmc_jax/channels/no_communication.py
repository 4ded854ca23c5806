"""The channel of workers that train apart."""

from __future__ import annotations

from gmc_jax.core import Channel, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.jaxprs import mark, no_communication_mark
from gmc_jax.utils.trees import upcast, zeros_to_accumulate


@call_repr
def no_communication(*, axis_name: str = "workers") -> Channel:
    """Sends nothing: the mean of each worker is its own tree, and nothing is lost.

    As the channel of `slowmo` it gives each worker a slow momentum of its own, the
    variant without averages. It also says that workers are meant to train separate
    models: `simulate` and `distribute` warn of separate models without it.

        optax.chain(averaged(no_communication()), optax.adam(0.001))

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A channel without state and without collectives. Its means differ between workers.

    Raises:
      TypeError: from `init` and `average` if a leaf is not floating.

    Guarantees:
      The law of channels; `mean` is the tree, and `lost` is zero.
    """
    checks.axis(axis_name=axis_name)

    def init(params):
        checks.floating(params)
        return ()

    def average(tree, state):
        checks.floating(tree)
        mean = mark(upcast(tree), no_communication_mark(axis_name))
        return mean, zeros_to_accumulate(tree), state

    def nothing(tree: Tree) -> int:
        del tree
        return 0

    return Channel(init, average, nothing, axis_name, nothing)
