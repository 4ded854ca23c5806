"""Compiles steps for devices that are not here, and counts what their programs hold.

The compilers read variables of the environment when JAX is imported, so this module
runs in a process of its own: `python -m experiments.bench.programs REQUEST`, with a
request in JSON. It prints a row of JSON for each step as soon as that is compiled.
`rows` starts the process and yields the rows.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from experiments.bench.compilers import COMPILERS, Target, mesh_of
from experiments.bench.hlo_costs import costs
from experiments.bench.steps import AT_QUERY, step_of, transformations
from experiments.training.record import Row
from gmc_jax.costs.hlo import collectives
from gmc_jax.utils.trees import size_in_bits

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Request:
    """What to compile.

    Attributes:
      target: the kind of device.
      leaves: the shapes of the parameters, float32.
      ratio: the share of the entries that messages hold.
      names: of the steps; see `steps.transformations`.
    """

    target: Target
    leaves: Sequence[Sequence[int]]
    ratio: float
    names: Sequence[str]


class Stopped(ValueError):
    """The compiler ended its process."""


def rows(request: Request) -> Iterator[Row]:
    """Compiles in a process of its own; yields a row for each step when it is done.

    Raises:
      Stopped: if the process ends before the last step; the message has its last words.
    """
    with (
        environment(request.target) as (variables, dump),
        tempfile.TemporaryFile("w+") as words,
    ):
        command = [
            *(sys.executable, "-m", __name__),
            *(json.dumps(asdict(request)), dump),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, text=True, env=variables
        )
        done = 0
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
                done += 1
        finally:
            process.kill()
            process.communicate()
        if done < len(request.names):
            words.seek(0)
            raise Stopped(
                f"the compiler for {request.target} ended its process at "
                f"{request.names[done]!r}: {words.read()[-1000:].strip()}"
            )


@contextlib.contextmanager
def environment(target: Target) -> Iterator[tuple[dict[str, str], str]]:
    """The variables of a process that compiles, and where it finds code for GPUs."""
    with tempfile.TemporaryDirectory() as dump:
        variables = {**os.environ, **COMPILERS[target].environment}
        if target == "gpu":
            variables["XLA_FLAGS"] += f" --xla_dump_to={dump} --xla_dump_emitter_re=ptx"
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        yield variables | {"PYTHONPATH": os.pathsep.join(paths)}, dump


def main(request: Request, dump: Path) -> None:
    """Compiles all steps of a request, and prints a row for each."""
    mesh = mesh_of(request.target)
    params = {
        f"leaf {place}": jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        for place, shape in enumerate(request.leaves)
    }
    made = transformations(request.ratio)
    for name in request.names:
        row = measured(made[name], name in AT_QUERY, params, mesh, dump)
        print(json.dumps({"name": name, **row}), flush=True)


def measured(
    tx: optax.GradientTransformation,
    at_query: bool,
    params: dict,
    mesh: Mesh,
    dump: Path,
) -> dict[str, Any]:
    """Compiles one step, and counts what its program holds.

    Args:
      tx: the transformation.
      at_query: for `step_of`.
      params: the shapes of the parameters.
      mesh: its devices.
      dump: where XLA writes the code of GPUs, which is removed.
    """
    workers = mesh.shape["workers"]
    own = NamedSharding(mesh, PartitionSpec("workers"))
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (workers, *leaf.shape), leaf.dtype, sharding=own
        ),
        params,
    )
    state = params, jax.eval_shape(tx.init, params)
    train, state = gmc_jax.distribute(step_of(tx, at_query), state, batch, mesh=mesh)
    start = time.perf_counter()
    compiled = train.lower(state, batch).compile()
    seconds = time.perf_counter() - start
    text = compiled.as_text() or ""
    sent = collectives(text)
    memory = compiled.memory_analysis()
    assert memory is not None
    found = costs(text)
    on_device = [
        jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
        for leaf in jax.tree.leaves(state)
    ]
    kernels = [file for file in dump.rglob("*.ptx") if file.is_file()]
    atomics = sum(_atomics(kernel.read_text()) for kernel in kernels)
    for file in dump.rglob("*"):
        if file.is_file():
            file.unlink()
    return {
        "entries": sum(np.prod(leaf.shape).item() for leaf in jax.tree.leaves(params)),
        "message": gmc_jax.message_bits(tx, params) / 8,
        "wire": sent.most,
        "always": sent.always,
        "collectives": [list(one) for one in sent.collectives],
        "moved": found.moved,
        "temporary": memory.temp_size_in_bytes,
        "sorts": [list(one) for one in found.sorts],
        "scatters": [list(one) for one in found.scatters],
        "kernels": len(kernels),
        "atomics": atomics,
        "donated": memory.alias_size_in_bytes,
        "state": size_in_bits(on_device) // 8,
        "aliased": found.aliased,
        "state_leaves": len(on_device),
        "seconds": seconds,
    }


def _atomics(ptx: str) -> int:
    """The atomic instructions in the code of a GPU: `atom` and `red`."""
    return len(re.findall(r"(?m)^\s*(?:@\S+\s+)?(?:atom|red)\.", ptx))


if __name__ == "__main__":
    main(Request(**json.loads(sys.argv[1])), Path(sys.argv[2]))
