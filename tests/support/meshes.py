"""Trees whose leaves are split over the devices of a worker, and channels on them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from tests.support.harness import average_here

MESHES = {
    "2 x 4": ((2, 4), ("workers", "a")),
    "4 x 2": ((4, 2), ("workers", "a")),
    "2 x 2 x 2": ((2, 2, 2), ("workers", "a", "b")),
    "the workers last": ((2, 4), ("a", "workers")),
}
# On a mesh without the axis b it splits nothing.
SPECS = {
    "columns": (None, "a"),
    "cube": ("b", None, "a"),
    "rows": (("b", "a"), None),
    "turned": (("a", "b"),),
    "whole": (None,),
}
SHAPES = {
    "columns": (6, 8),
    "cube": (2, 3, 4),
    "rows": (8, 5),
    "turned": (16,),
    "whole": (7,),
}


def trees_of(workers: int, dtype: str, seed: int = 0):
    """Small whole numbers: every magnitude has many ties, zeros among them."""
    draw = np.random.default_rng(seed)
    return {
        name: draw.integers(-4, 5, size=(workers, *shape)).astype(jnp.dtype(dtype))
        for name, shape in SHAPES.items()
    }


def specs_on(mesh: Mesh) -> dict[str, PartitionSpec]:
    def known(axes) -> tuple[str, ...]:
        names = axes if isinstance(axes, tuple) else (axes,)
        return tuple(name for name in names if name in mesh.axis_names)

    return {
        name: PartitionSpec(*(known(axes) or None for axes in spec))
        for name, spec in SPECS.items()
    }


def on_mesh(channel, trees, mesh: Mesh, calls: int = 2):
    """Every worker's mean, lost and state of the last call, and the program."""
    specs = specs_on(mesh)
    like = {
        name: jax.device_put(np.zeros_like(tree[0]), NamedSharding(mesh, specs[name]))
        for name, tree in trees.items()
    }

    def step(state, batch):
        return state, average_here(channel, batch, state[1], calls)

    split = {
        name: jax.device_put(
            tree, NamedSharding(mesh, PartitionSpec("workers", *specs[name]))
        )
        for name, tree in trees.items()
    }
    train, state = gmc_jax.distribute(
        step, (like, channel.init(like)), split, mesh=mesh
    )
    compiled = train.lower(state, split).compile()
    _, results = compiled(state, split)
    return gmc_jax.fetch(results), compiled.as_text() or ""


def on_one_device(channel, trees, calls: int = 2):
    like = jax.tree.map(lambda tree: jnp.zeros_like(tree[0]), trees)
    state = channel.init(like)
    everyone = jax.vmap(
        lambda tree: average_here(channel, tree, state, calls), axis_name="workers"
    )
    return jax.tree.map(np.asarray, jax.jit(everyone)(trees))


def mesh_named(name: str) -> Mesh:
    shape, names = MESHES[name]
    return Mesh(np.array(jax.devices()).reshape(shape), names)
