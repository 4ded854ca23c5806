"""Which arrays of a state differ between workers: inferred from the step itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gmc_jax.core import Tree
from gmc_jax.execution._step_warnings import doubts
from gmc_jax.execution.step import Step, check_batch, trace
from gmc_jax.utils import checks
from gmc_jax.utils.caller_warnings import warn
from gmc_jax.utils.differences import first_difference
from gmc_jax.utils.jaxprs import Kind, batched_results, kinds_updated, marks, not_held
from gmc_jax.utils.prng_keys import is_key, is_raw_key
from gmc_jax.utils.trees import (
    accumulator_dtype,
    class_names,
    mean_over_workers,
    whole_mean_over_workers,
)


class Train:
    """The step of all workers, compiled: `(state, batch) -> (state, metrics)`.

    Attributes:
      layout: how the state is kept.
    """

    def __init__(self, run: jax.stages.Wrapped, layout: Layout) -> None:
        """Wraps a function of `jax.jit` or `jax.pmap`."""
        self._run = run
        self.layout = layout

    def __repr__(self) -> str:
        """Says whose step it is."""
        return f"<a step of {self.layout.workers} workers, compiled>"

    def __call__(self, state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Runs a step."""
        self._check(state, batch)
        return self._run(state, batch)

    def trace(self, state: Tree, batch: Tree) -> jax.stages.Traced:
        """As of `jax.jit`."""
        self._check(state, batch)
        return self._run.trace(state, batch)

    def lower(self, state: Tree, batch: Tree) -> jax.stages.Lowered:
        """As of `jax.jit`."""
        self._check(state, batch)
        return self._run.lower(state, batch)

    def _check(self, state: Tree, batch: Tree) -> None:
        """Nothing, where the function checks its arguments when it is compiled."""


class Checked(Train):
    """One that checks its arguments before it runs."""

    _passed: object = None

    def _check(self, state: Tree, batch: Tree) -> None:
        """Looks closely only at what is of other types than the last that passed."""
        leaves, treedef = jax.tree.flatten((state, batch))
        types = [
            (getattr(leaf, "shape", type(leaf)), getattr(leaf, "dtype", None))
            for leaf in leaves
        ]
        if self._passed != (treedef, types):
            self.layout.check(state, batch)
            self._passed = treedef, types


class Layout(NamedTuple):
    """How a state is kept between steps.

    Attributes:
      workers: their number.
      axis_name: the named axis whose indices they are.
      differs: bools in the structure of the state: True where a leaf differs between
        workers and is kept with a leading axis of workers; False where it is the same
        on all of them and is kept once.
      shapes: one worker's state, as `jax.ShapeDtypeStruct`.
      apart: the classes of states that the step updates and the state does not hold,
        since what keeps them, such as `nnx.split`, takes them apart.
    """

    workers: int
    axis_name: str
    differs: Tree
    shapes: Tree
    apart: tuple[Kind, ...] = ()

    @property
    def axes(self) -> Tree:
        """0 or None, for `in_axes` and `out_axes` of `jax.vmap` and `jax.pmap`."""
        return jax.tree.map(lambda differs: 0 if differs else None, self.differs)

    @property
    def specs(self) -> Tree:
        """Partition specs, for `in_specs` and `out_specs` of `jax.shard_map`."""
        own, same = PartitionSpec(self.axis_name), PartitionSpec()
        return jax.tree.map(lambda differs: own if differs else same, self.differs)

    @property
    def kept(self) -> Tree:
        """The state as it is kept for all workers, as `jax.ShapeDtypeStruct`."""

        def keep(one: jax.ShapeDtypeStruct, differs: bool) -> jax.ShapeDtypeStruct:
            lead = (self.workers,) if differs else ()
            return jax.ShapeDtypeStruct(lead + one.shape, one.dtype)

        return jax.tree.map(keep, self.shapes, self.differs)

    def of(self, select: Callable[[Tree], Tree]) -> Layout:
        """The layout of a part of the state, such as `lambda state: state[0]`."""
        differs, shapes = select(self.differs), select(self.shapes)
        apart = not_held(self.apart, class_names(shapes))
        return Layout(self.workers, self.axis_name, differs, shapes, apart)

    def check_whole(self, caller: str, reads: Callable[[Kind], bool]) -> None:
        """Raises ValueError if a state that the caller reads is taken apart."""
        read = [kind.name for kind in self.apart if reads(kind)]
        if read:
            raise ValueError(
                f"`{caller}` must ask each `{read[0]}` that the step updates, but the "
                "state of `layout` holds none: `nnx.split`, say, makes dictionaries of "
                "an `nnx.Optimizer`. Keep `params` and `tx.init(params)` in the state "
                "instead, or pass `pure(state)` and `layout.of(pure)`, where `pure` is "
                "`nnx.as_pure((nnx.state(model), optimizer.opt_state))` of `model, "
                "optimizer = nnx.merge(graph, state)`."
            )

    def lay_out(self, state: Tree) -> Tree:
        """One worker's state as it is kept: copied, and repeated where it differs.

        Raises:
          ValueError: if it is not one worker's.
        """

        def place(leaf: jax.Array, differs: bool) -> jax.Array:
            # A Python number would come back as an array, and compile the step twice.
            leaf = jnp.array(leaf, jnp.result_type(leaf), copy=True)
            return jnp.repeat(leaf[None], self.workers, axis=0) if differs else leaf

        difference = first_difference(self.shapes, state, "state")
        if difference is not None:
            raise ValueError(
                f"`state` must be one worker's, of the step that this is the layout "
                f"of, but {difference}. A state that is laid out already is kept as "
                "it is."
            )
        return jax.tree.map(place, state, self.differs)

    def average(self, tree: Tree) -> Tree:
        """One worker's worth of a kept part: the mean of each leaf that differs.

        Random keys have no mean: they are those of the first worker.
        """

        def mean(leaf: jax.Array, differs: bool) -> jax.Array:
            if not differs:
                return leaf
            if is_key(leaf) or is_raw_key(leaf):
                return leaf[0]
            if jnp.issubdtype(leaf.dtype, jnp.integer):
                return whole_mean_over_workers(leaf)
            wide = jnp.dtype("float32") if leaf.dtype == bool else leaf.dtype
            average = mean_over_workers(leaf, accumulator_dtype(wide))
            if leaf.dtype == bool:
                average = jnp.round(average)
            return average.astype(leaf.dtype)

        return jax.tree.map(mean, tree, self._differs_in(tree))

    def check_kept(self, state: Tree) -> None:
        """Raises ValueError unless a state is one as this layout keeps it."""
        difference = first_difference(self.kept, state, "state")
        if difference is not None:
            raise ValueError(
                f"`state` is not one of {self.workers} workers as its layout keeps it: "
                f"{difference}. State, `train` and layout must come from one call of "
                "`simulate` or `distribute` (for `jax.pmap` from `layout.lay_out`). "
                "Take a state of another number of workers through `gmc_jax.resize` "
                "first; a part of a state goes with `layout.of(lambda state: ...)`."
            )

    def check(self, state: Tree, batch: Tree) -> None:
        """Raises ValueError unless both are those of all workers, as they are kept."""
        self.check_kept(state)
        check_batch(batch, self.workers)

    def checked(self, train: jax.stages.Wrapped) -> Train:
        """Makes the step of all workers refuse the state of others.

        For `jax.pmap`, which looks at little of what it is given. What `simulate` and
        `distribute` return checks its arguments by itself, when it is compiled.

        Args:
          train: `(state, batch) -> (state, metrics)` of all workers.

        Returns:
          The same function, which also has this `layout`.
        """
        return Checked(train, self)

    def _differs_in(self, tree: Tree) -> Tree:
        """The part of `differs` that belongs to a kept tree, found by its shapes."""
        treedef = jax.tree.structure(tree)
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]

        def is_like(node: Tree) -> bool:
            return jax.tree.structure(node) == treedef

        found = {}
        differing = jax.tree.leaves(self.differs, is_leaf=is_like)
        single = jax.tree.leaves(self.shapes, is_leaf=is_like)
        for node, one in zip(differing, single, strict=True):
            flags = jax.tree.leaves(node)
            kept = [
                (self.workers, *leaf.shape) if differs else leaf.shape
                for differs, leaf in zip(flags, jax.tree.leaves(one), strict=True)
            ]
            if is_like(node) and kept == shapes:
                found[tuple(flags)] = node
        if len(found) != 1:
            what = "several trees" if found else "no tree"
            raise ValueError(
                f"`layout` holds {what} of this structure and these shapes in the "
                f"state as it is kept for {self.workers} workers, so it does not tell "
                "which leaves differ between them. Pass the layout of the step that "
                "made the tree, or of the part it is: `layout.of(lambda state: ...)`."
            )
        return found.popitem()[1]

    def check_replicated(self, select: Callable[[Tree], Tree]) -> None:
        """Raises ValueError if a leaf of a part differs between workers."""
        names = jax.tree_util.tree_map_with_path(
            lambda path, _: f"state{jax.tree_util.keystr(path)}", self.differs
        )
        selected = zip(
            jax.tree.leaves(select(names)),
            jax.tree.leaves(select(self.differs)),
            strict=True,
        )
        differing = [f"`{name}`" for name, differs in selected if differs]
        if differing:
            some = ", ".join(differing[:4]) + (", ..." if len(differing) > 4 else "")
            raise ValueError(
                f"with this step what `replicated` selects differs between workers "
                f"({some}), which a synchronous method never lets happen to "
                "parameters. Updates must pass through a channel on their way: "
                "`optax.masked` lets the leaves it leaves out pass as they are (use "
                "`optax.partition`, with `averaged(exact())` for them), and "
                "`optax.apply_if_finite` decides on each worker's own gradients (use "
                "`gmc_jax.skip_nonfinite`). A method whose workers are meant to differ "
                "has no business in `replicated`."
            )


def layout(
    step: Step, state: Tree, batch: Tree, workers: int, *, axis_name: str = "workers"
) -> Layout:
    """Infers which leaves of a state come to differ between workers.

    The step is traced once and never run, and its program is batched by `jax.vmap`: a
    leaf of the new state that comes out batched depends on the worker's own batch or
    index. What differs is fed back until nothing is added. What does not differ is
    thereby *proved* to be the same on all workers.

    A warning tells of a step that takes gradients and trains separate models, since
    nothing of what workers send comes into the state, and of one that never asks
    `gmc_jax.query` where its method takes them. The channel `no_communication()` says
    that workers are meant to stay apart. No warning tells of a part of the model that
    no channel averages, such as a branch of `optax.partition`, since workers keep much
    else to themselves: what `replicated` selects in `simulate` and `distribute` is
    checked. What a trace cannot show is said with what it concerns: `periodic`, `gmc`,
    `reset_buffers`. Gradients that are written out by hand are such.

    Args:
      step: the step of one worker, `(state, batch) -> (state, metrics)`. It must return
        a state of the structure, shapes and dtypes that it was given.
      state: one worker's state, the same on all of them at the start: arrays or
        `jax.ShapeDtypeStruct`.
      batch: the batches of all workers: every leaf has a leading axis of workers.
      workers: their number.
      axis_name: the named axis that the step averages over.

    Returns:
      The layout.

    Raises:
      TypeError: if `step` is no function, or `axis_name` no name.
      ValueError: if `workers` is not at least 1, a leaf of `batch` has no leading axis
        of workers, or the step changes the structure or the types of the state.
    """
    checks.function(step=step)
    checks.positive_int(workers=workers)
    checks.axis(axis_name=axis_name)
    check_batch(batch, workers)
    shapes = jax.eval_shape(lambda state: jax.tree.map(jnp.asarray, state), state)
    program = trace(step, shapes, batch, workers, axis_name)
    leaves, treedef = jax.tree.flatten(shapes)
    own, found = [], [False] * len(leaves)
    while own != found:
        own = found
        of_batches = [True] * len(jax.tree.leaves(batch))
        new = batched_results(program, [*own, *of_batches], workers, axis_name)
        found = [old or now for old, now in zip(own, new, strict=True)]
    differs = treedef.unflatten(own)
    apart = not_held(kinds_updated(marks(program)), class_names(shapes))
    for doubt in doubts(program, shapes, differs, apart, workers, axis_name):
        warn(doubt)
    return Layout(workers, axis_name, differs, shapes, apart)


def check_layout(plan: object) -> None:
    """Raises TypeError unless a `layout` is one."""
    if not isinstance(plan, Layout):
        raise TypeError(
            "`layout` must be a `Layout`, such as `train.layout`, but is "
            f"{checks.shown(plan)}."
        )
