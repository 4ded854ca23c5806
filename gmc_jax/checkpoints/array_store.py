"""Arrays in files, by orbax: each process writes and reads what it holds."""

import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

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
        import tensorstore  # Orbax needs it.

        self._orbax, self._tensorstore = orbax, tensorstore
        self._files = orbax.Checkpointer(orbax.PyTreeCheckpointHandler())

    def write(self, folder: pathlib.Path, leaves: Sequence[Tree]) -> None:
        """Writes leaves to a folder that is not there yet, and waits for it."""
        held = _held(leaves)
        if held:  # Orbax knows neither empty arrays nor empty trees.
            args = self._orbax.args.PyTreeSave(held)
            _to_the_end(lambda: self._files.save(folder, args=args))
        else:
            folder.mkdir(exist_ok=True)

    def check(self, folder: pathlib.Path, leaves: Sequence[Tree]) -> None:
        """Raises OSError unless all leaves that were written are there.

        Orbax first writes what each process holds, and then joins the parts; it takes
        no offence where it finds none.
        """
        wanted = _held(leaves)
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
        """Reads leaves of some places, each placed as another one that is like it."""
        numbers = dict(zip(map(_name, places), map(_numbers, likes), strict=True))
        how = {name: self._way_of(leaf) for name, leaf in numbers.items() if leaf.size}
        found = {}
        if how:
            args = self._orbax.args.PyTreeRestore(
                item=dict.fromkeys(how, 0), restore_args=how, partial_restore=True
            )
            found = _to_the_end(lambda: self._files.restore(folder, args=args))
        read = (
            found[name] if name in found else np.zeros(leaf.shape, leaf.dtype)
            for name, leaf in numbers.items()
        )
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


def _to_the_end(work: Callable[[], Tree]) -> Tree:
    """Does work that is not left half done when the process is interrupted.

    The interrupt is raised afterwards. Orbax has threads of its own, who would write
    on where all has been removed, and end in errors of theirs.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _name(place: int) -> str:
    return f"{place:06}"


def _held(leaves: Sequence[Tree]) -> dict[str, Tree]:
    """What there is to write, by its name."""
    numbers = enumerate(map(_numbers, leaves))
    return {_name(place): leaf for place, leaf in numbers if leaf.size}


def _numbers(leaf: Tree) -> Tree:
    """The data of typed keys; other arrays, and shapes of arrays, as they are."""
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return np.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, leaf)
    return jax.random.key_data(leaf)
