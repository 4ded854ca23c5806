"""Random keys for each worker."""

from __future__ import annotations

import jax

from gmc_jax.channels._axis import workers_on
from gmc_jax.core import Tree
from gmc_jax.utils import checks
from gmc_jax.utils.prng_keys import is_key


def worker_key(key: jax.Array, *, axis_name: str = "workers") -> jax.Array:
    """Derives a worker's own random key from one that all workers share.

    Call it inside the step. Without it, a key in the replicated state gives all workers
    the same draws, such as the same dropout.

    Args:
      key: a typed or raw key, the same on all workers.
      axis_name: the named axis whose indices are the workers.

    Returns:
      The key with the worker's index folded in.

    Raises:
      NameError: if no such axis is in scope.
    """
    checks.axis(axis_name=axis_name)
    workers_on(axis_name, "worker_key")
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def worker_rngs(rngs: Tree, *, axis_name: str = "workers") -> Tree:
    """Derives a worker's own random keys from those that all workers share.

    It is `worker_key` for each key in a tree. For Flax NNX, pass the `nnx.Rngs` of the
    step, or what `nnx.split` returns of a model with dropout, before `nnx.merge`:

        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss_fn(params, rest, batch):  # inside the step
            model = nnx.merge(graph, params, gmc_jax.worker_rngs(rest))

    For Flax linen, pass the dictionary: `rngs=worker_rngs({"dropout": key})`. The keys
    may be kept in the state afterwards. They differ between workers then, and it does
    no harm to fold in the index again at the next step.

    Args:
      rngs: any tree that holds typed random keys, the same on all workers. Raw keys of
        `jax.random.PRNGKey` look like other integers, and cannot be found in a tree;
        use `jax.random.key`.
      axis_name: the named axis whose indices are the workers.

    Returns:
      The tree, with the worker's index folded into each key. Its other leaves, such as
      counters and batch statistics, are unchanged. Nodes of Flax are new ones, which
      the function that called it may change.

    Raises:
      NameError: if no such axis is in scope.
      ValueError: if the tree holds no typed key.
    """
    checks.axis(axis_name=axis_name)
    workers_on(axis_name, "worker_rngs")
    if not any(map(_is_key, jax.tree.leaves(rngs))):
        raise ValueError(
            "`rngs` must hold a typed random key, got none. Make keys by "
            "`jax.random.key`, and pass the part of the model's state that holds its "
            "random state. For one raw key there is `worker_key`."
        )

    def own(leaf: jax.Array) -> jax.Array:
        if not _is_key(leaf):
            return leaf
        index = jax.lax.axis_index(axis_name)
        keys = jax.vmap(jax.random.fold_in, (0, None))(leaf.reshape(-1), index)
        return keys.reshape(leaf.shape)

    return jax.tree.map(own, rngs)


def _is_key(leaf: jax.typing.ArrayLike) -> bool:
    return isinstance(leaf, jax.Array) and is_key(leaf)
