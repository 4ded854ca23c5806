"""Which arrays of a state differ between workers: inferred from the step itself."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec

from gmc_jax import checks
from gmc_jax.core import Tree
from gmc_jax.trees import accumulator_dtype, mean_of, shares

Step: TypeAlias = Callable[[Tree, Tree], tuple[Tree, Tree]]
"""The step of one worker: `(state, batch) -> (state, metrics)`."""


class Layout(NamedTuple):
    """How a state is kept between steps.

    Attributes:
      workers: their number.
      axis_name: the named axis whose indices they are.
      differs: bools in the structure of the state: True where a leaf differs between
        workers and is kept with a leading axis of workers; False where it is the same
        on all of them and is kept once.
      shapes: one worker's state, as `jax.ShapeDtypeStruct`.
    """

    workers: int
    axis_name: str
    differs: Tree
    shapes: Tree

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

    def of(self, select: Callable[[Tree], Tree]) -> "Layout":
        """The layout of a part of the state, such as `lambda state: state[0]`."""
        return Layout(
            self.workers, self.axis_name, select(self.differs), select(self.shapes)
        )

    def lay_out(self, state: Tree) -> Tree:
        """One worker's state as it is kept: copied, and repeated where it differs."""

        def place(leaf: jax.Array, differs: bool) -> jax.Array:
            # A Python number would come back as an array, and compile the step twice.
            leaf = jnp.array(leaf, jnp.result_type(leaf), copy=True)
            return jnp.repeat(leaf[None], self.workers, axis=0) if differs else leaf

        return jax.tree.map(place, state, self.differs)

    def average(self, tree: Tree) -> Tree:
        """One worker's worth of a kept part: the mean of each leaf that differs."""

        def mean(leaf: jax.Array, differs: bool) -> jax.Array:
            if not differs:
                return leaf
            if jnp.issubdtype(leaf.dtype, jnp.integer):
                # Of the differences, as large integers have too many digits for floats.
                signed = jnp.dtype(f"int{8 * leaf.dtype.itemsize}")
                apart = jnp.mean((leaf - leaf[0]).astype(signed), axis=0)
                return leaf[0] + jnp.round(apart).astype(signed).astype(leaf.dtype)
            wide = jnp.float32 if leaf.dtype == bool else accumulator_dtype(leaf.dtype)
            share, rest = shares(leaf.shape[0])
            average = mean_of(jnp.sum(leaf.astype(wide) * share, axis=0), rest)
            if leaf.dtype == bool:
                average = jnp.round(average)
            return average.astype(leaf.dtype)

        return jax.tree.map(mean, tree, self._differs_in(tree))

    def check_kept(self, state: Tree) -> None:
        """Raises ValueError unless a state is one as this layout keeps it."""
        ours, theirs = jax.tree.structure(self.shapes), jax.tree.structure(state)
        if ours != theirs:
            raise ValueError(
                f"`state` must have the structure of its layout, {ours}, but has "
                f"{theirs}. Pass the layout of the step that made it, and the whole of "
                "it, or a part with its layout: `layout.of(lambda state: ...)`."
            )
        leaves = jax.tree.leaves(state)
        kept = jax.tree_util.tree_leaves_with_path(self.kept)
        for (path, one), leaf in zip(kept, leaves, strict=True):
            if (one.shape, one.dtype) != (jnp.shape(leaf), jnp.result_type(leaf)):
                raise ValueError(
                    f"`layout` keeps `state{jax.tree_util.keystr(path)}` of "
                    f"{self.workers} workers as {one.dtype}{list(one.shape)}, but it "
                    f"is {jnp.result_type(leaf)}{list(jnp.shape(leaf))}. Pass the "
                    "layout of the step that made the state, for as many workers."
                )

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

    The step is traced under `jax.vmap`, never run: a leaf of the new state that comes
    out batched depends on the worker's own batch or index. What differs is fed back
    until nothing is added, two or three traces in all. What does not differ is thereby
    *proved* to be the same on all workers.

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
      ValueError: if `workers` is not at least 1, a leaf of `batch` has no leading axis
        of workers, or the step changes the structure or the types of the state.
    """
    checks.positive(workers=workers)
    check_batch(batch, workers)
    shapes = jax.eval_shape(lambda state: jax.tree.map(jnp.asarray, state), state)
    plan = Layout(workers, axis_name, jax.tree.map(lambda _: False, shapes), shapes)
    while True:
        found = _differing_after(step, plan, batch)
        differs = jax.tree.map(lambda old, new: old or new, plan.differs, found)
        # Not the trees: a container need not know how to compare itself.
        if jax.tree.leaves(differs) == jax.tree.leaves(plan.differs):
            return plan
        plan = Layout(workers, axis_name, differs, shapes)


def check_batch(batch: Tree, workers: int) -> None:
    """Raises ValueError unless every leaf has a leading axis of workers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        shape = jnp.shape(leaf)
        if shape[:1] != (workers,):
            raise ValueError(
                f"`batch` must have a leading axis of {workers} workers on every leaf, "
                f"but `batch{jax.tree_util.keystr(path)}` has shape {shape}. Reshape "
                f"[{workers} * n, ...] to [{workers}, n, ...], or change the number of "
                "workers (under `distribute`: the size of the mesh's axis)."
            )


def _differing_after(step: Step, plan: Layout, batch: Tree) -> Tree:
    """Which leaves come out batched when those that differ by now go in batched."""
    leaves, treedef = jax.tree.flatten(plan.shapes)
    batched = [False] * len(leaves)

    def probe(place: int, leaf: jax.Array) -> jax.Array:
        @custom_vmap
        def identity(leaf: jax.Array) -> jax.Array:
            return leaf

        @identity.def_vmap
        def _(size: int, is_batched: list[bool], leaf: jax.Array) -> tuple:
            del size
            batched[place] = is_batched[0]
            return leaf, is_batched[0]

        return identity(leaf)

    def one_worker(state: Tree, batch: Tree) -> list[jax.Array]:
        new, _ = step(state, batch)
        _check_same_types(plan.shapes, new)
        return [probe(place, leaf) for place, leaf in enumerate(jax.tree.leaves(new))]

    jax.eval_shape(
        jax.vmap(
            one_worker,
            in_axes=(plan.axes, 0),
            axis_size=plan.workers,
            axis_name=plan.axis_name,
        ),
        plan.kept,
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)),
            batch,
        ),
    )
    return treedef.unflatten(batched)


def _check_same_types(before: Tree, after: Tree) -> None:
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        raise ValueError(
            "`step` must return a state of the structure that it was given, but it was "
            f"given {old} and returned {new}."
        )
    new_leaves = jax.tree.leaves(after)
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), new_leaves, strict=True)
    for (path, was), leaf in pairs:
        now = jax.typeof(jnp.asarray(leaf))
        if (was.shape, was.dtype) != (now.shape, now.dtype):
            name = f"state{jax.tree_util.keystr(path)}"
            raise ValueError(
                "`step` must return a state of the shapes and dtypes that it was "
                f"given, but `{name}` was {was.dtype}{list(was.shape)} and came back "
                f"{now.dtype}{list(now.shape)}. Cast it in the step, or start with a "
                "state of that type."
            )
