"""Numbers about a method's state, for logging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import jax
import jax.numpy as jnp

from gmc_jax.channels.count_bytes import CountBytesState
from gmc_jax.core import Tree
from gmc_jax.execution.layout import Layout, check_layout
from gmc_jax.transforms.error_feedback import ErrorFeedbackState
from gmc_jax.transforms.leave_out_nonfinite import LeaveOutNonfiniteState
from gmc_jax.transforms.partial_sync import PartialSyncState
from gmc_jax.transforms.skip_nonfinite import SkipNonfiniteState
from gmc_jax.utils.multihost import fetch
from gmc_jax.utils.trees import accumulator_dtype, find, mean_over_workers

# The fields of states that hold what a worker has not sent yet.
_RESIDUALS = {ErrorFeedbackState: "residual", PartialSyncState: "error"}
_READ = {
    kind.__name__
    for kind in (
        *_RESIDUALS,
        *(CountBytesState, SkipNonfiniteState, LeaveOutNonfiniteState),
    )
}


def metrics(
    opt_state: Tree, layout: Layout, params: Tree | None = None
) -> dict[str, float]:
    """Computes numbers about a method's state, for a logger.

    Call it outside the named axis, as often as you log. States are found by their
    classes inside any chain. A key is there if the method has such a state:

        residual_norm    sqrt(mean over workers of |e_k|^2), where e_k is all that
                         worker k has not sent yet: the residuals of `error_feedback`,
                         in the units of the updates there, and the errors of `cser`
        bytes_sent       bytes that one worker sent so far, through all channels inside
                         `count_bytes`
        skipped_steps    steps that all workers skipped, in `skip_nonfinite` and
                         `leave_out_nonfinite`
        left_out         updates that `leave_out_nonfinite` left out, summed over
                         workers
        disagreement     sqrt(mean over workers of |x_k - x|^2), where x_k are the
                         parameters of worker k, and x is their mean; 0 if the layout
                         says that they are the same on all workers. It needs `params`

    One compiled program reads each array once or twice, and copies none for each
    worker. Under `distribute`, each worker sends a number or two for each leaf. The
    `disagreement` of parameters that differ costs more: an average of all parameters
    over the link of the workers, uncompressed. Leave `params` out, or pass it rarely,
    where the link is slow.

    Args:
      opt_state: the optimizer's state as it is kept between steps. Its nodes must be of
        the classes that the method made.
      layout: the layout of the whole state that holds `opt_state` and `params`, or of a
        part that does.
      params: the parameters as they are kept, for `disagreement`.

    Returns:
      A dictionary of Python numbers, which TensorBoard and Weights & Biases take as
      they are. Over several processes all of them must call it together, and all get
      the same numbers.

    Raises:
      TypeError: if `layout` is not a layout.
      ValueError: as `evaluate`; here for the states that the table names.

    Example:
      >>> import gmc_jax, jax.numpy as jnp, optax
      >>> channel = gmc_jax.count_bytes(gmc_jax.all_gather(gmc_jax.top_k(0.5)))
      >>> tx = gmc_jax.gmc(0.1, channel)
      >>> def step(state, batch):
      ...     params, opt_state = state
      ...     updates, opt_state = tx.update(params - batch, opt_state, params)
      ...     return (optax.apply_updates(params, updates), opt_state), {}
      >>> start, batch = jnp.zeros(2), jnp.array([[4.0, 3.0]] * 8)
      >>> train, state = gmc_jax.simulate(step, (start, tx.init(start)), batch, 8)
      >>> (params, opt_state), _ = train(state, batch)
      >>> gmc_jax.metrics(opt_state, train.layout)
      {'residual_norm': 3.0, 'bytes_sent': 8}
    """
    check_layout(layout)
    residuals, counts = _residuals(opt_state), list(_counts(opt_state))
    if not residuals and not counts:
        layout.check_holds("metrics", lambda cls: cls.name in _READ)
    apart = {} if params is None else {"disagreement": params}
    own = {"residual_norm": residuals} if residuals else {}
    differs = {
        "residual_norm": _residuals(layout.differs_in(opt_state)),
        "disagreement": () if params is None else layout.differs_in(params),
    }
    flags = {name: tuple(jax.tree.leaves(differs[name])) for name in own | apart}
    roots = fetch(_roots(own, apart, tuple(flags.items())))
    numbers: dict[str, float] = {name: float(root) for name, root in roots.items()}
    for name, count in counts:
        numbers[name] = numbers.get(name, 0) + count
    return numbers


def _residuals(opt_state: Tree) -> list[Tree]:
    return [
        getattr(state, field)
        for kind, field in _RESIDUALS.items()
        for state in find(opt_state, kind)
    ]


def _counts(opt_state: Tree) -> Iterator[tuple[str, int]]:
    """Yields the counts of all states, by the name of the metric."""
    for state in find(opt_state, CountBytesState):
        yield "bytes_sent", _whole(state.sent)
    for kind in (SkipNonfiniteState, LeaveOutNonfiniteState):
        for state in find(opt_state, kind):
            yield "skipped_steps", int(fetch(state.skipped))
    for state in find(opt_state, LeaveOutNonfiniteState):
        yield "left_out", int(fetch(state.left_out).sum())


def _whole(count: jax.Array) -> int:
    """The number that a [2] uint32 count stands for."""
    high, low = fetch(count).tolist()
    return high * 2**32 + low


@partial(jax.jit, static_argnums=2)
def _roots(own: Tree, apart: Tree, differs: tuple) -> dict[str, jax.Array]:
    """Computes roots of mean squares over workers: of trees, and of their distances.

    Args:
      own: trees, by the name of the metric.
      apart: trees of which only the distance from their mean counts.
      differs: pairs of a name, and for each leaf whether it differs between workers.
    """
    flags = dict(differs)

    def square(leaf: jax.Array) -> jax.Array:
        wide = leaf.astype(accumulator_dtype(leaf.dtype))
        return jnp.sum(jnp.square(jnp.abs(wide)))

    def from_mean(leaf: jax.Array) -> jax.Array:
        dtype = accumulator_dtype(leaf.dtype)
        return leaf.astype(dtype) - mean_over_workers(leaf, dtype)[None]

    def total(terms: Iterable[jax.Array]) -> jax.Array:
        return jnp.sqrt(sum(terms, jnp.zeros(())))

    roots = {}
    for name, tree in own.items():
        pairs = zip(jax.tree.leaves(tree), flags[name], strict=True)
        roots[name] = total(
            square(leaf) / (leaf.shape[0] if differs else 1) for leaf, differs in pairs
        )
    for name, tree in apart.items():
        pairs = zip(jax.tree.leaves(tree), flags[name], strict=True)
        roots[name] = total(
            square(from_mean(leaf)) / leaf.shape[0]
            for leaf, differs in pairs
            if differs and jnp.issubdtype(leaf.dtype, jnp.inexact)
        )
    return roots
