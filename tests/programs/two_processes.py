"""One of two processes of four devices each, which train together.

`test_processes` starts both, as `python -m tests.programs.two_processes PORT PROCESS
FILE`. What a process saw goes to the file.
"""

import pathlib
import sys

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gmc_jax
from gmc_jax import all_gather, all_reduce, count_entries, gmc, random_block, top_k
from gmc_jax.utils.multihost import map_over_processes, on_first_process
from tests.support.harness import WORKERS, start, step_of, targets

STEPS = 6
METHODS = {
    "top_k": gmc(0.1, count_entries(all_gather(top_k(0.2)))),
    "random_block": gmc(0.1, count_entries(all_reduce(random_block(0.2)))),
    "guarded": gmc_jax.skip_nonfinite(gmc(0.1, count_entries(all_gather(top_k(0.2))))),
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
        "metrics": np.array(list(gmc_jax.metrics(opt_state, run.layout).values())),
        "loss": np.stack(losses),
        **{f"params {k}": v for k, v in gmc_jax.fetch(params).items()},
        **{f"residual {k}": v for k, v in gmc_jax.fetch(residual).items()},
    }


def planned(method: str, workers: int):
    """The layout of so many workers, and the state that one starts from."""
    tx = METHODS[method]
    state = start(), tx.init(start())
    batch = jax.tree.map(lambda x: x[0, :workers], batches(method))
    return gmc_jax.layout(step_of(tx), state, batch, workers), state


def checkpoints(directory: pathlib.Path) -> dict[str, np.ndarray]:
    """Saves after a step, goes on, and does so again from what was saved."""
    tx = METHODS["top_k"]
    batch = [jax.tree.map(lambda x, t=t: x[t], batches("top_k")) for t in (0, 1)]
    plan, begun = planned("top_k", WORKERS)
    run, state = gmc_jax.distribute(step_of(tx), begun, batch[0], metrics="mean")
    state, metrics = run(state, batch[0])
    if jax.process_index() == 0:  # Alone, which would wait for ever for each worker's.
        float(metrics["loss"])
    with gmc_jax.Checkpoints(directory, plan, about={"ratio": 0.2}) as saved:
        assert saved.latest is None
        saved.save(1, state, seconds=2.5)
        kept = gmc_jax.fetch(state)
        ended = gmc_jax.fetch(run(state, batch[1])[0])
        _, like = gmc_jax.distribute(step_of(tx), begun, batch[0])
        _, part, _ = saved.restore(like, only=lambda state: state[0])
        part = gmc_jax.fetch((part[0], part[1], like[1]))
        step, state, extras = saved.restore(like)
    assert (step, extras) == (1, {"seconds": 2.5})
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        assert ours.sharding == theirs.sharding
    again = gmc_jax.fetch(run(state, batch[1])[0])
    pairs = zip(
        jax.tree.leaves((again, part[:2])),
        jax.tree.leaves((ended, (kept[0], part[2]))),
        strict=True,
    )
    refused = "nothing"
    try:
        gmc_jax.Checkpoints(directory, plan, about={"ratio": 0.3}).restore(like)
    except ValueError as error:
        refused = str(error)
    residual = optax.tree.get(kept[1], "residual")
    return {
        "goes on": np.array([np.array_equal(one, other) for one, other in pairs]),
        "refused": np.array(refused),
        "mean loss": np.asarray(metrics["loss"]),
        **{f"saved params {k}": v for k, v in kept[0].items()},
        **{f"saved residual {k}": v for k, v in residual.items()},
    }


def agreements() -> dict[str, np.ndarray]:
    """What is decided once, and worked out in parts."""

    def fail() -> None:
        raise FileNotFoundError("nothing there")

    failed = "nothing"
    try:
        on_first_process(fail)
    except ValueError as error:
        failed = str(error)
    own = jax.process_index() + 1
    return {
        "agreed": np.array(
            on_first_process(lambda: [own, "é", {"a": None}]), object
        ).astype(str),
        "shared": np.array(
            map_over_processes(
                lambda item: int(item) * own, ["1", "-2", str(2**40 - 1)]
            )
        ),
        "failed": np.array(failed),
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
    results |= agreements()
    results |= checkpoints(pathlib.Path(file).parent / "checkpoints")
    for method in METHODS:
        for batch, spread in (("whole", False), ("spread", True)):
            for name, value in train(method, spread).items():
                results[f"{method}, {batch}, {name}"] = value
    np.savez(file, **results)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
