"""The first place where two trees differ, in a few words."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from gmc_jax.core import Tree
from gmc_jax.utils.differences import first_difference


class Pair(NamedTuple):
    """A node with names."""

    one: Tree
    two: Tree


@flax.struct.dataclass
class Labelled:
    """A node with something that is no array."""

    leaf: Tree
    label: str = flax.struct.field(pytree_node=False, default="a")


@jax.tree_util.register_pytree_node_class
class Opaque:
    """A node whose children have no names, and which does not tell what is static."""

    def __init__(self, leaf, static):
        self.leaf, self.static = leaf, static

    def tree_flatten(self):
        return (self.leaf,), self.static

    @classmethod
    def tree_unflatten(cls, aux, leaves):
        return cls(leaves[0], aux)


def training(tx, dtype="float32"):
    params = {"w": jnp.zeros(3, dtype)}
    return TrainState.create(apply_fn=None, params=params, tx=tx)


SGD = optax.sgd(0.1, momentum=0.9)
F, N = jax.ShapeDtypeStruct((3,), "float32"), jax.ShapeDtypeStruct((), "int32")

DIFFERENT = {
    "shape": (F, jnp.zeros((2, 3)), "`s` must be float32[3], got float32[2, 3]"),
    "text": ([F], ["x"], "`s[0]` must be float32[3], got a `str`"),
    "object": ([F], [object()], "`s[0]` must be float32[3], got a `object`"),
    "dtype": ([F], [jnp.zeros(3, int)], "`s[0]` must be float32[3], got int32[3]"),
    "typed key": (
        jax.eval_shape(jax.random.key, 0),
        jax.random.PRNGKey(0),
        "`s` must be key<fry>[], got uint32[2]",
    ),
    "generator": (
        jax.eval_shape(jax.random.key, 0),
        jax.random.key(0, impl="rbg"),
        "`s` must be key<fry>[], got key<rbg>[]",
    ),
    "missing": (
        {"a": F, "b": (F, N)},
        {"a": F},
        "`s['b']` must be a tuple of 2, but is missing",
    ),
    "more": ({"a": F}, {"a": F, "b": N}, "`s['b']` must not be there, got int32[]"),
    "longer": ((F,), (F, N), "`s[1]` must not be there, got int32[]"),
    "None": (Pair(F, None), Pair(F, F), "`s.two` must be None, got float32[3]"),
    "not None": (Pair(F, F), Pair(None, F), "`s.one` must be float32[3], got None"),
    "empty": ((F, ()), (F, N), "`s[1]` must be a tuple of 0, got int32[]"),
    "type": (
        {"x": Pair(F, F)},
        {"x": Opaque(F, "a")},
        "`s['x']` must be a `Pair`, got a `Opaque`",
    ),
    "deep": (
        {"a": F, "b": [Pair(F, {"c": N})]},
        {"a": F, "b": [Pair(F, {"c": (N,)})]},
        "`s['b'][0].two['c']` must be int32[], got a tuple of 1",
    ),
    "label": (
        [Labelled(F)],
        [Labelled(F, "b")],
        "`s[0].label`, which is not an array, must be the same object, got another",
    ),
    "static": (
        [Opaque(F, "a")],
        [Opaque(F, "b")],
        "the static data of `s[0]`, a `Opaque`, must be the same",
    ),
    "another tx": (
        training(SGD),
        training(optax.sgd(0.1, momentum=0.9)),
        "`s.tx`, which is not an array, must be the same object, got another",
    ),
    "another method": (
        training(SGD),
        training(optax.sgd(0.1)),
        "`s.opt_state[0]` must be a `TraceState`, got a `EmptyState`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_the_first_difference_is_named_and_no_structure_printed(kind):
    """The kind: structures of a screen each, where one place is what matters."""
    expected, given, words = DIFFERENT[kind]
    assert first_difference(expected, given, "s") == words


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ([F, N], [np.ones(3, np.float32), 7]),
        ([F, N], [np.ones(3), jnp.asarray(7)]),
        (training(SGD), training(SGD)),
        (jax.eval_shape(jax.random.key, 0), jax.random.key(5)),
        ((), ()),
        (None, None),
        (Opaque(F, "a"), Opaque(jnp.ones(3), "a")),
    ],
)
def test_like_trees_have_no_difference(expected, given):
    """Of whatever the leaves are: NumPy's, numbers, tracers, shapes."""
    assert first_difference(expected, given, "s") is None
    if jax.tree.leaves(given):
        seen = []
        jax.eval_shape(
            lambda tree: seen.append(first_difference(expected, tree, "s")), given
        )
        assert seen == [None]
