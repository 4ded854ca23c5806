"""Stores arrays in files, by orbax; each process writes and reads its own shards."""

import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree


class ArrayStore:
    """Writes and reads the leaves of a state, in their order."""

    def __init__(self) -> None:
        """Imports orbax; raises ImportError if it is not installed."""
        try:
            import orbax.checkpoint as orbax
        except ImportError as error:
            raise ImportError(
                "`Checkpoints` needs orbax, which is not installed. Install it with "
                '`pip install "gmc_jax[checkpoints]"`.'
            ) from error
        import tensorstore  # A dependency of orbax.

        self._orbax, self._tensorstore = orbax, tensorstore
        self._checkpointer = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())

    def write(self, folder: pathlib.Path, leaves: Sequence[Tree]) -> None:
        """Writes leaves to a new folder, and waits until they are written."""
        arrays = _named_arrays(leaves)
        if arrays:  # Orbax supports neither empty arrays nor empty trees.
            args = self._orbax.args.PyTreeSave(arrays)
            _uninterrupted(lambda: self._checkpointer.save(folder, args=args))
        else:
            folder.mkdir(exist_ok=True)

    def check(self, folder: pathlib.Path, leaves: Sequence[Tree]) -> None:
        """Raises OSError unless the files hold all leaves that were written.

        Orbax first writes the shards of each process, and then merges them. If it finds
        none to merge, it raises no error.
        """
        wanted = _named_arrays(leaves)
        found = set()
        if wanted:
            files = {"driver": "file", "path": f"{folder}/"}
            spec = {"driver": "ocdbt", "base": files}
            keys = self._tensorstore.KvStore.open(spec).result().list().result()
            found = {key.decode().partition("/")[0] for key in keys}
        if missing := sorted(wanted.keys() - found):
            raise OSError(
                f"`{folder}` was written without an error, but {len(missing)} of "
                f"{len(wanted)} arrays are not in it. Try another directory, and the "
                "version of orbax-checkpoint that gmc_jax was tested with."
            )

    def read(
        self, folder: pathlib.Path, places: Sequence[int], likes: Sequence[Tree]
    ) -> list[Tree]:
        """Reads the leaves of some places.

        Args:
          folder: the folder that `write` has written.
          places: which leaves to read.
          likes: for each of them, an array of its shape, dtype and sharding.

        Returns:
          The leaves, each placed on devices as its array in `likes`.
        """
        wanted = dict(zip(map(_name, places), map(_as_numbers, likes), strict=True))
        options = {
            name: self._restore_args(leaf) for name, leaf in wanted.items() if leaf.size
        }
        found = {}
        if options:
            args = self._orbax.args.PyTreeRestore(
                item=dict.fromkeys(options, 0),
                restore_args=options,
                partial_restore=True,
            )
            found = _uninterrupted(
                lambda: self._checkpointer.restore(folder, args=args)
            )
        leaves = (
            found[name] if name in found else np.zeros(leaf.shape, leaf.dtype)
            for name, leaf in wanted.items()
        )
        return list(map(place_like, leaves, likes))

    def close(self) -> None:
        """Closes orbax's files and threads."""
        self._checkpointer.close()

    def _restore_args(self, like: Tree) -> Tree:
        """Tells orbax to read a leaf to the devices of another one, or to the host."""
        if not (isinstance(like, jax.Array) and like.committed):
            return self._orbax.RestoreArgs(restore_type=np.ndarray)
        return self._orbax.ArrayRestoreArgs(
            sharding=like.sharding, global_shape=like.shape, dtype=like.dtype
        )


def place_like(leaf: Tree, like: Tree) -> Tree:
    """Places an array as another one is placed.

    An array is committed to devices only if the other one is: `pmap`, for example,
    cannot move committed arrays.

    Args:
      leaf: the array; keys as their data.
      like: an array of the same shape and dtype.

    Returns:
      An array of JAX if `like` is one, else of NumPy.
    """
    if not isinstance(like, jax.Array):
        return np.asarray(leaf)
    if not isinstance(leaf, jax.Array):
        target = _as_numbers(like)
        if target.committed:
            leaf = jax.make_array_from_callback(
                target.shape, target.sharding, lambda index: leaf[index]
            )
        else:
            leaf = jnp.array(leaf)
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like))
    return leaf


def _uninterrupted(work: Callable[[], Tree]) -> Tree:
    """Finishes work even if the process is interrupted; then raises the interrupt.

    Orbax has threads of its own. Otherwise they would still write after the folder has
    been removed, and raise errors.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _name(place: int) -> str:
    return f"{place:06}"


def _named_arrays(leaves: Sequence[Tree]) -> dict[str, Tree]:
    """Returns the arrays to write, by name, without empty ones."""
    arrays = enumerate(map(_as_numbers, leaves))
    return {_name(place): leaf for place, leaf in arrays if leaf.size}


def _as_numbers(leaf: Tree) -> Tree:
    """Replaces typed keys by their data; other arrays and shapes stay unchanged."""
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return np.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)
