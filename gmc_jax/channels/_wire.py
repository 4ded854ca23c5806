"""How trees cross between workers: one array for each dtype, as wide as it is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.core import Tree


def run_collective(tree: Tree, collective: Callable[[jax.Array], jax.Array]) -> Tree:
    """Puts a tree through a collective, called once for each dtype in it.

    Floats narrower than 32 bits cross as the integers of their bits, since XLA may
    widen them on the way.

    Args:
      tree: of arrays.
      collective: from a vector to what arrives: a vector of the same entries, perhaps
        behind leading axes.

    Returns:
      What arrived, in the shapes of the tree behind those leading axes.
    """
    leaves, treedef = jax.tree.flatten(tree)
    wires = [_on_the_wire(leaf) for leaf in leaves]
    arrivals = list(leaves)
    for dtype in dict.fromkeys(wire.dtype for wire in wires):
        places = [place for place, wire in enumerate(wires) if wire.dtype == dtype]
        flat = [wires[place].reshape(-1) for place in places]
        arrived = collective(flat[0] if len(flat) == 1 else jnp.concatenate(flat))
        start = 0
        for place in places:
            leaf = leaves[place]
            part = arrived[..., start : start + leaf.size]
            start += leaf.size
            part = part.reshape(*arrived.shape[:-1], *leaf.shape)
            if part.dtype != leaf.dtype:
                part = lax.bitcast_convert_type(part, leaf.dtype)
            arrivals[place] = part
    return treedef.unflatten(arrivals)


def _on_the_wire(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4:
        width = leaf.dtype.itemsize * 8
        return lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{width}"))
    return leaf
