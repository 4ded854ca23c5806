"""Compiles for devices that are not here; prints a line of JSON for each program.

The compilers read variables of the environment when JAX is imported, so tests run this
in a process of its own, which has them: `python -m tests.programs.compile_only TARGET
DUMP`.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from experiments.bench import compilers, programs, steps
from experiments.bench.compilers import Target

# No size is a multiple of 128, and one leaf is tiny.
LEAVES = {"one": (300, 251), "two": (201, 150), "three": (333,)}
RATIO = 0.001
ROUNDS = 5
# Their programs differ little from that of GMC through `top_k`.
ALIKE = {"EF-SGD", "GMC+", "DEF-A"}
# XLA finds no tiles for a product of 10,050 x 3 with 3 x 3, which the leaf "two" needs.
WITHOUT_TILES = {"in_frequencies", "DeMo"}


def shapes() -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in LEAVES.items()
    }


def channels() -> dict[str, gmc_jax.Channel]:
    return {
        name: channel
        for name, channel in steps.channels(RATIO).items()
        if name not in WITHOUT_TILES
    }


def methods() -> list[str]:
    left_out = ALIKE | WITHOUT_TILES
    return [name for name in steps.methods(RATIO) if name not in left_out]


def every_step(target: Target, dump: pathlib.Path):
    """GMC through every channel; for GPUs, which compile fast, the methods too."""
    names = list(channels()) + (methods() if target == "gpu" else [])
    made = steps.transformations(RATIO)
    mesh = compilers.mesh_of(target)
    for name in names:
        yield name, programs.measured(made[name], False, shapes(), mesh, dump)


def sent(step, state, batch, mesh: Mesh) -> dict:
    train, state = gmc_jax.distribute(step, state, batch, mesh=mesh)
    bytes_sent = gmc_jax.wire_bytes(train, state, batch)
    return {
        "wire": bytes_sent,
        "collectives": bytes_sent.operations,
        "specs": [str(leaf.sharding.spec) for leaf in jax.tree.leaves(state)],
    }


def loop(target: Target):
    """Five means in a loop, the rounds of which TPU programs do not print."""
    mesh = compilers.mesh_of(target)

    def step(state, batch):
        def mean(_, x):
            return jax.lax.pmean(jnp.sin(x), "workers")

        return state, jax.lax.fori_loop(0, ROUNDS, mean, batch)

    own = NamedSharding(mesh, PartitionSpec("workers"))
    batch = jax.ShapeDtypeStruct((8, 1000), jnp.float32, sharding=own)
    yield "loop", sent(step, jax.ShapeDtypeStruct((), jnp.float32), batch, mesh)


def split(target: Target):
    """Two workers of four devices, the leaves of which are split."""
    devices = compilers.mesh_of(target).devices.reshape(2, 4)
    mesh = Mesh(devices, ("workers", "model"))

    def leaf(spec, *lead, dtype=jnp.float32):
        sharding = NamedSharding(mesh, PartitionSpec(*lead, *spec))
        shape = (*(mesh.shape[axis] for axis in lead), 64, 100)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    specs = {"rows": ("model", None), "columns": (None, "model")}
    tx = steps.transformations(RATIO)["top_k"]
    for dtype in ("float32", "bfloat16"):
        params = {name: leaf(spec, dtype=dtype) for name, spec in specs.items()}
        batch = {
            name: leaf(spec, "workers", dtype=dtype) for name, spec in specs.items()
        }
        state = params, jax.eval_shape(tx.init, params)
        yield f"split {dtype}", sent(steps.step_of(tx), state, batch, mesh)


def refusals(target: Target):
    """What arrays become there, and what running a step says."""
    mesh = compilers.mesh_of(target)
    params = {"one": np.ones((4, 8), np.float32)}
    tx = gmc_jax.dmsgd(0.1, gmc_jax.exact())
    batch = {"one": np.ones((8, 4, 8), np.float32)}
    train, state = gmc_jax.distribute(
        steps.step_of(tx), (params, tx.init(params)), batch, mesh=mesh
    )
    with pytest.raises(TypeError) as error:
        train(state, batch)
    shaped = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)]
    yield "refusal", {"message": str(error.value), "shapes": all(shaped)}


def main(target: Target, dump: pathlib.Path) -> None:
    for part in (loop(target), split(target), refusals(target)):
        for name, row in part:
            print(json.dumps({"name": name, **row}), flush=True)
    for name, row in every_step(target, dump):
        print(json.dumps({"name": name, **row}), flush=True)


if __name__ == "__main__":
    first, second = sys.argv[1:]
    main("tpu" if first == "tpu" else "gpu", pathlib.Path(second))
