"""One of two processes of four devices each, which train together.

`test_processes` starts both: `python -m tests.two_processes PORT PROCESS FILE`. What a
process saw goes to the file.
"""

import sys

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import all_gather, all_reduce, counted, gmc, random_block, top_k
from tests.runners import WORKERS, start, step_of, targets

STEPS = 6
METHODS = {
    "top_k": gmc(0.1, counted(all_gather(top_k(0.2)))),
    "random_block": gmc(0.1, counted(all_reduce(random_block(0.2)))),
    "guarded": gmc_jax.skip_nonfinite(gmc(0.1, counted(all_gather(top_k(0.2))))),
}


def batches(method: str):
    """The targets; the guarded method meets a NaN of one worker."""
    pulled_to = targets(start(), STEPS)
    if method == "guarded":
        pulled_to["bias"][2, 6, 1] = np.nan
    return pulled_to


def train(method: str, spread: bool) -> dict[str, np.ndarray]:
    """Trains over all processes; the results are what `fetch` makes of them."""
    tx = METHODS[method]
    sharding = NamedSharding(
        Mesh(np.array(jax.devices()), ("workers",)), PartitionSpec("workers")
    )
    own = slice(4 * jax.process_index(), 4 * jax.process_index() + 4)

    def batch(t: int):
        """Either the same arrays in each process, or each process's own rows."""
        whole = jax.tree.map(lambda x: x[t], batches(method))
        if not spread:
            return whole
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, x[own]), whole
        )

    run, state = gmc_jax.distribute(step_of(tx), (start(), tx.init(start())), batch(0))
    losses = []
    for t in range(STEPS):
        state, metrics = run(state, batch(t))
        losses.append(gmc_jax.fetch(metrics)["loss"])
    gmc_jax.assert_replicated(state)
    params, opt_state = state
    residual = optax.tree.get(opt_state, "residual")
    assert len(residual["bias"].addressable_shards) == 4
    return {
        "relative cost": np.array(gmc_jax.relative_cost(opt_state)),
        "loss": np.stack(losses),
        **{f"params {k}": v for k, v in gmc_jax.fetch(params).items()},
        **{f"residual {k}": v for k, v in gmc_jax.fetch(residual).items()},
    }


def replicas_that_differ() -> str:
    """What `assert_replicated` says of an array that is the process's own number."""
    sharding = NamedSharding(
        Mesh(np.array(jax.devices()), ("workers",)), PartitionSpec()
    )
    number = np.float32(jax.process_index())
    array = jax.make_array_from_single_device_arrays(
        (), sharding, [jax.device_put(number, d) for d in jax.local_devices()]
    )
    try:
        gmc_jax.assert_replicated(array)
    except AssertionError as error:
        return str(error)
    return "nothing"


def main(port: str, process: str, file: str) -> None:
    """Joins the other process, trains and saves."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", WORKERS // 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"localhost:{port}",
        num_processes=2,
        process_id=int(process),
        initialization_timeout=60,
    )
    results: dict = {"replicas": replicas_that_differ()}
    for method in METHODS:
        for batch, spread in (("whole", False), ("spread", True)):
            for name, value in train(method, spread).items():
                results[f"{method}, {batch}, {name}"] = value
    np.savez(file, **results)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
