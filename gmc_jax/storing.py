"""Arrays in files, by orbax: each process writes and reads what it holds."""

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree


class Files:
    """Writes and reads the leaves of a state, in their order."""

    def __init__(self) -> None:
        """Finds orbax, or says how to get it."""
        try:
            import orbax.checkpoint as orbax
        except ImportError as error:
            raise ImportError(
                "`Checkpoints` writes arrays by orbax, which is not installed. Install "
                'it with `pip install "gmc_jax[checkpoints]"`.'
            ) from error
        self._orbax = orbax
        self._files = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())

    def write(self, folder: pathlib.Path, leaves: Sequence[Tree]) -> None:
        """Writes leaves to a folder that is not there yet, and waits for it."""
        numbers = enumerate(map(_numbers, leaves))
        held = {_name(place): leaf for place, leaf in numbers if leaf.size}
        if held:  # Orbax knows neither empty arrays nor empty trees.
            self._files.save(folder, args=self._orbax.args.PyTreeSave(held))
        else:
            folder.mkdir(exist_ok=True)

    def read(self, folder: pathlib.Path, likes: Sequence[Tree]) -> list[Tree]:
        """Reads leaves, each placed as another one that is like it."""
        numbers = list(map(_numbers, likes))
        how = {
            _name(place): self._way_of(leaf)
            for place, leaf in enumerate(numbers)
            if leaf.size
        }
        found = {}
        if how:
            item = dict.fromkeys(how, 0)
            args = self._orbax.args.PyTreeRestore(item=item, restore_args=how)
            found = self._files.restore(folder, args=args)
        empty = (np.zeros(leaf.shape, leaf.dtype) for leaf in numbers)
        read = (found.get(_name(place), leaf) for place, leaf in enumerate(empty))
        return list(map(placed, read, likes))

    def close(self) -> None:
        """Closes what orbax has open."""
        self._files.close()

    def _way_of(self, like: Tree) -> Tree:
        """How orbax is to read a leaf: where it is to be, or on the host."""
        if not (isinstance(like, jax.Array) and like.committed):
            return self._orbax.RestoreArgs(restore_type=np.ndarray)
        return self._orbax.ArrayRestoreArgs(
            sharding=like.sharding, global_shape=like.shape, dtype=like.dtype
        )


def placed(leaf: Tree, like: Tree) -> Tree:
    """An array where another one like it is; keys are given as their data.

    What is not committed to devices stays so, or `pmap` and others could not move it;
    what is no array of JAX is one of NumPy.
    """
    if not isinstance(like, jax.Array):
        return np.asarray(leaf)
    if not isinstance(leaf, jax.Array):
        numbers = _numbers(like)
        if numbers.committed:
            leaf = jax.make_array_from_callback(
                numbers.shape, numbers.sharding, lambda index: leaf[index]
            )
        else:
            leaf = jnp.array(leaf)
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like))
    return leaf


def _name(place: int) -> str:
    return f"{place:06}"


def _numbers(leaf: Tree) -> Tree:
    """The data of typed keys; other arrays, and shapes of arrays, as they are."""
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return np.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)
