"""Infers from a step which leaves of its state differ between workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gmc_jax.core import Tree
from gmc_jax.execution._step_warnings import step_warnings
from gmc_jax.execution.step import Step, check_batch, trace
from gmc_jax.utils import checks, jaxprs
from gmc_jax.utils.batched_state import batched_state
from gmc_jax.utils.caller_warnings import warn_caller
from gmc_jax.utils.differences import first_difference
from gmc_jax.utils.jaxprs import StateClass
from gmc_jax.utils.prng_keys import is_key, is_raw_key
from gmc_jax.utils.trees import (
    accumulator_dtype,
    class_names,
    integer_mean_over_workers,
    mean_over_workers,
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
        """Says how many workers run the step."""
        return f"<a step of {self.layout.workers} workers, compiled>"

    def __call__(self, state: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Runs one step of all workers."""
        self._check(state, batch)
        return self._run(state, batch)

    def trace(self, state: Tree, batch: Tree) -> jax.stages.Traced:
        """Traces the step, as the method `trace` of a `jax.jit` function does."""
        self._check(state, batch)
        return self._run.trace(state, batch)

    def lower(self, state: Tree, batch: Tree) -> jax.stages.Lowered:
        """Lowers the step, as the method `lower` of a `jax.jit` function does."""
        self._check(state, batch)
        return self._run.lower(state, batch)

    def _check(self, state: Tree, batch: Tree) -> None:
        """Does nothing: the function checks its arguments when it is compiled."""


class CheckedStep(Train):
    """The step of all workers, which checks its arguments before each call."""

    _last_types: object = None

    def _check(self, state: Tree, batch: Tree) -> None:
        """Checks arguments whose types differ from those of the last call."""
        leaves, treedef = jax.tree.flatten((state, batch))
        types = [
            (getattr(leaf, "shape", type(leaf)), getattr(leaf, "dtype", None))
            for leaf in leaves
        ]
        if self._last_types != (treedef, types):
            self.layout.check(state, batch)
            self._last_types = treedef, types


class Layout(NamedTuple):
    """How a state is kept between steps: what differs between workers, and its shapes.

    Attributes:
      workers: the number of workers.
      axis_name: the named axis whose indices are the workers.
      differs: bools in the structure of the state. True: the leaf differs between
        workers, and is kept with a leading axis of workers. False: the leaf is the same
        on all workers, and is kept once.
      shapes: one worker's state, as `jax.ShapeDtypeStruct`.
      missing_states: the classes of states that the step updates and the state does not
        hold. A container such as `nnx.split`'s has taken them apart.
    """

    workers: int
    axis_name: str
    differs: Tree
    shapes: Tree
    missing_states: tuple[StateClass, ...] = ()

    @property
    def axes(self) -> Tree:
        """The axis of workers of each leaf: 0, or None if it has none.

        They are `in_axes` and `out_axes` of the state, for `jax.vmap` and `jax.pmap`.
        """
        return jax.tree.map(lambda differs: 0 if differs else None, self.differs)

    @property
    def specs(self) -> Tree:
        """The partition spec of each leaf.

        They are `in_specs` and `out_specs` of the state, for `jax.shard_map`.
        """
        own, same = PartitionSpec(self.axis_name), PartitionSpec()
        return jax.tree.map(lambda differs: own if differs else same, self.differs)

    @property
    def kept(self) -> Tree:
        """The state of all workers as it is kept, as `jax.ShapeDtypeStruct`."""

        def keep(one: jax.ShapeDtypeStruct, differs: bool) -> jax.ShapeDtypeStruct:
            lead = (self.workers,) if differs else ()
            return jax.ShapeDtypeStruct(lead + one.shape, one.dtype)

        return jax.tree.map(keep, self.shapes, self.differs)

    def of(self, select: Callable[[Tree], Tree]) -> Layout:
        """Returns the layout of a part of the state.

        Args:
          select: selects the part, such as `lambda state: state[0]`.
        """
        differs, shapes = select(self.differs), select(self.shapes)
        missing = jaxprs.classes_missing_from(class_names(shapes), self.missing_states)
        return Layout(self.workers, self.axis_name, differs, shapes, missing)

    def check_holds(self, caller: str, needed: Callable[[StateClass], bool]) -> None:
        """Raises ValueError if the state does not hold a state that a caller needs.

        Args:
          caller: the name of the function that needs it.
          needed: whether the caller needs the states of a class.
        """
        missing = [cls.name for cls in self.missing_states if needed(cls)]
        if missing:
            raise ValueError(
                f"`{caller}` needs each `{missing[0]}` that the step updates, but the "
                "state of `layout` holds none. `nnx.split`, for example, turns an "
                "`nnx.Optimizer` into dictionaries. Keep `params` and "
                "`tx.init(params)` in the state instead, or pass `pure(state)` and "
                "`layout.of(pure)`, where `pure` returns `nnx.as_pure((nnx.state("
                "model), optimizer.opt_state))` of `model, optimizer = nnx.merge("
                "graph, state)`."
            )

    def lay_out(self, state: Tree) -> Tree:
        """Makes the state of all workers from that of one.

        Every leaf is copied; leaves that differ are repeated for each worker.

        Args:
          state: one worker's state.

        Raises:
          ValueError: if `state` is not one worker's.
        """

        def place(leaf: jax.Array, differs: bool) -> jax.Array:
            # Steps return arrays. A Python number would make `train` compile twice.
            dtype = jnp.result_type(leaf)
            if not differs:
                return jnp.array(leaf, dtype, copy=True)
            leaf = jnp.asarray(leaf, dtype)
            return jnp.broadcast_to(leaf, (self.workers, *leaf.shape))

        difference = first_difference(self.shapes, state, "state")
        if difference is not None:
            raise ValueError(
                "`state` must be one worker's, of the step that this layout belongs "
                f"to, but {difference}. Do not lay out a state twice."
            )
        return jax.tree.map(place, state, self.differs)

    def average(self, tree: Tree) -> Tree:
        """Averages those leaves of a part of the state that differ between workers.

        Random keys have no mean: the first worker's are returned.

        Args:
          tree: the part, as it is kept between steps.

        Returns:
          The part as one worker has it.
        """

        def mean(leaf: jax.Array, differs: bool) -> jax.Array:
            if not differs:
                return leaf
            if is_key(leaf) or is_raw_key(leaf):
                return leaf[0]
            if jnp.issubdtype(leaf.dtype, jnp.integer):
                return integer_mean_over_workers(leaf)
            wide = jnp.dtype("float32") if leaf.dtype == bool else leaf.dtype
            average = mean_over_workers(leaf, accumulator_dtype(wide))
            if leaf.dtype == bool:
                average = jnp.round(average)
            return average.astype(leaf.dtype)

        return jax.tree.map(mean, tree, self.differs_in(tree))

    def check_kept(self, state: Tree) -> None:
        """Raises ValueError unless a state is kept as this layout says."""
        difference = first_difference(self.kept, state, "state")
        if difference is not None:
            raise ValueError(
                f"`state` must be kept as the layout for {self.workers} workers says: "
                f"{difference}. Take state, `train` and layout from one call of "
                "`simulate` or `distribute` (for `jax.pmap`, the state from "
                "`layout.lay_out`). If the state is of another number of workers, pass "
                "it to `gmc_jax.resize` first; if it is a part of the state, use "
                "`layout.of(lambda state: ...)`."
            )

    def check(self, state: Tree, batch: Tree) -> None:
        """Raises ValueError unless state and batch are those of all workers."""
        self.check_kept(state)
        check_batch(batch, self.workers)

    def checked(self, train: jax.stages.Wrapped) -> Train:
        """Makes a step check that state and batch fit this layout.

        It is for `jax.pmap`, which checks little of its arguments. The steps that
        `simulate` and `distribute` return check theirs when they are compiled.

        Args:
          train: the step of all workers, `(state, batch) -> (state, metrics)`.

        Returns:
          The same step, with this layout as its `layout`.
        """
        return CheckedStep(train, self)

    def differs_in(self, tree: Tree) -> Tree:
        """Finds the part of `differs` that belongs to a part of the state.

        Args:
          tree: the part, as it is kept between steps. It is found by its structure and
            its shapes.

        Raises:
          ValueError: if the state holds no such tree, or several of which not the same
            leaves differ between workers.
        """
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
                "`layout` must say which leaves of the tree differ between workers, "
                f"but the state that it keeps for {self.workers} workers holds {what} "
                "of this structure and these shapes. Pass the layout of the step that "
                "made the tree, or of the part: `layout.of(lambda state: ...)`."
            )
        return found.popitem()[1]

    def check_replicated(self, select: Callable[[Tree], Tree]) -> None:
        """Raises ValueError if a leaf that `select` selects differs between workers."""
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
                "The leaves that `replicated` selects must be the same on all workers, "
                f"but with this step they differ ({some}). A synchronous method sends "
                "every update through a channel. `optax.masked` leaves the updates of "
                "masked leaves unchanged: use `optax.partition`, with "
                "`averaged(exact())` for them. `optax.apply_if_finite` decides on each "
                "worker's own gradients: use `gmc_jax.skip_nonfinite`. Leave out of "
                "`replicated` what is meant to differ."
            )


def layout(
    step: Step, state: Tree, batch: Tree, workers: int, *, axis_name: str = "workers"
) -> Layout:
    """Infers which leaves of a state differ between workers after some steps.

    The step is traced once and never run. Its program is batched by `jax.vmap`. A leaf
    of the new state that comes out batched depends on the worker's own batch or index.
    It is fed back as batched, until no further leaf comes out batched. Every other leaf
    is thereby *proved* to be the same on all workers. The rounds begin with what plain
    operations surely batch, so one or two are enough.

    Four kinds of steps cause a warning. The first takes gradients and trains separate
    models, since nothing that workers send reaches the state. The channel
    `no_communication()` says that this is intended. The second never calls
    `gmc_jax.query`, although its method takes gradients at another point than the
    parameters. The third draws random numbers inside a gradient with a key that is the
    same on all workers, so that they all drop the same units (see `worker_key`). The
    fourth draws there with a key that it closes over, so that all steps draw the same.
    What all workers or steps shall draw alike is drawn outside of the gradient, or with
    a key that is written there, such as `jax.random.key(0)`.

    Some mistakes cause no warning. One is a part of the model that no channel averages,
    such as a branch of `optax.partition`: many leaves are meant to differ between
    workers, so it does not stand out. Select such a part by `replicated` in `simulate`
    and `distribute`, which check it. Other mistakes are not visible in a trace, such as
    those in steps whose gradients are written out by hand. The docstrings of
    `periodic`, `gmc` and `reset_buffers` name those that concern them.

    Args:
      step: the step of one worker, `(state, batch) -> (state, metrics)`. It must return
        a state of the structure, shapes and dtypes that it was given.
      state: one worker's state, the same on all workers at the start: arrays or
        `jax.ShapeDtypeStruct`.
      batch: the batches of all workers: every leaf has a leading axis of workers.
      workers: the number of workers.
      axis_name: the named axis that the step averages over.

    Returns:
      The layout.

    Raises:
      TypeError: if `step` is not a function, or `axis_name` not a string.
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
    differs = treedef.unflatten(batched_state(program, len(leaves), workers, axis_name))
    updated = jaxprs.classes_updated(jaxprs.marks(program))
    missing = jaxprs.classes_missing_from(class_names(shapes), updated)
    for message in step_warnings(program, shapes, differs, missing, workers, axis_name):
        warn_caller(message)
    return Layout(workers, axis_name, differs, shapes, missing)


def check_layout(layout: object) -> None:
    """Raises TypeError unless `layout` is a `Layout`."""
    if not isinstance(layout, Layout):
        raise TypeError(
            "`layout` must be a `Layout`, such as `train.layout`, got "
            f"{checks.shown(layout)}."
        )
