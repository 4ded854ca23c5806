"""Saves one checkpoint after another until it is killed; `test_checkpoints` does it.

`python -m tests.programs.checkpoint_writer DIRECTORY`. It prints each saved step.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import gmc_jax

SIZE = 30_000


def state_at(step: int) -> dict[str, np.ndarray]:
    """What is saved at a step: whoever knows the step knows all of it."""
    numbers = np.arange(2 * SIZE, dtype=np.float32).reshape(2, SIZE) + step
    return {"own": numbers, "same": np.full((), step, np.float32)}


def layout() -> gmc_jax.Layout:
    """The layout of two workers."""
    differs = {"own": True, "same": False}
    one = {"own": state_at(0)["own"][0], "same": state_at(0)["same"]}
    return gmc_jax.Layout(2, "workers", differs, jax.eval_shape(lambda: one))


def main(directory: str) -> None:
    """Goes on from whatever is there."""
    jax.config.update("jax_platforms", "cpu")
    with gmc_jax.Checkpoints(pathlib.Path(directory), layout()) as checkpoints:
        done = 0
        if checkpoints.latest is not None:
            done, state, _ = checkpoints.restore(state_at(0))
            np.testing.assert_array_equal(state["own"], state_at(done)["own"])
        while True:
            done += 1
            checkpoints.save(done, jax.tree.map(jnp.asarray, state_at(done)))
            print(done, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
