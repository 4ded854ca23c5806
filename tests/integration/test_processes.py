"""Two processes of four devices train what eight simulated workers do."""

import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax.utils.multihost import map_over_processes, on_first_process
from tests.programs.two_processes import METHODS, STEPS, batches, planned
from tests.support.harness import drive, simulate, start, step_of

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 240  # alone on 2 cores they take about 15


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def seen(folder) -> list[dict[str, np.ndarray]]:
    """What each of the two processes saw."""
    port = str(free_port())
    processes: list[subprocess.Popen] = []
    for index in range(2):
        command = [
            "-m",
            "tests.programs.two_processes",
            port,
            str(index),
            f"{index}.npz",
        ]
        with (folder / f"{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command[:-1], str(folder / command[-1])],
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        end = time.monotonic() + SECONDS
        codes = [None, None]
        # One that fails leaves the other waiting for it.
        while None in codes and not any(codes) and time.monotonic() < end:
            time.sleep(0.2)
            codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if codes != [0, 0]:
        logs = [(folder / f"{index}.log").read_text() for index in range(2)]
        pytest.fail(
            f"exit codes {codes} (None: still running after {SECONDS} s, or when the "
            f"other failed); their output:\n\n{logs[0]}\n\n{logs[1]}"
        )
    return [dict(np.load(folder / f"{index}.npz")) for index in range(2)]


@pytest.mark.slow
def test_what_is_made_before_jax_starts_does_not_start_it():
    """Else `jax.distributed.initialize` comes too late."""
    program = [sys.executable, "-m", "tests.programs.make_all"]
    done = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("batch", ["whole", "spread"])
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_as_simulated_workers_do(seen, method, batch):
    tx = METHODS[method]
    (params, opt_state), metrics = drive(
        simulate, step_of(tx), (start(), tx.init(start())), batches(method)
    )
    residual = optax.tree.get(opt_state, "residual")
    squares = sum(np.sum(leaf**2) for leaf in jax.tree.leaves(residual))
    expected = {
        "relative cost": gmc_jax.relative_cost(opt_state),
        "metrics": [np.sqrt(squares / 8)] + [1] * (method == "guarded"),
        "loss": metrics["loss"],
        **{f"params {name}": leaf for name, leaf in params.items()},
        **{f"residual {name}": leaf for name, leaf in residual.items()},
    }
    assert np.isfinite(params["bias"]).all()
    assert expected["loss"].shape == (STEPS, 8)
    for process in seen:
        for name, value in expected.items():
            ours = process[f"{method}, {batch}, {name}"]
            np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-6)


def test_both_processes_see_the_same(seen):
    first, second = seen
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_the_first_process_reads_mean_metrics_alone(seen):
    """The kind: metrics that one process cannot read, and for which it would hang."""
    for process in seen:
        expected = process["top_k, whole, loss"][0].mean()
        np.testing.assert_allclose(process["mean loss"], expected, rtol=1e-6)


def test_replicas_that_differ_between_processes_are_found(seen):
    for process in seen:
        assert "other bits in some processes" in str(process["replicas"])


# Checkpoints, and what they agree on.


def test_processes_agree_on_what_the_first_decides_and_share_work(seen):
    for process in seen:
        assert process["agreed"].tolist() == ["1", "é", "{'a': None}"]
        assert process["shared"].tolist() == [1, -4, 2**40 - 1]
        assert process["failed"] == "nothing there"


def test_one_process_agrees_with_itself():
    decided = object()
    assert on_first_process(lambda: decided) is decided
    assert map_over_processes(len, ["a", "", "bcd"]) == [1, 0, 3]
    assert map_over_processes(len, []) == []
    with pytest.raises(FileNotFoundError):
        on_first_process(lambda: pathlib.Path("/nowhere/at all").stat())


def test_both_go_on_from_a_checkpoint_as_if_they_had_not_stopped(seen):
    for process in seen:
        assert process["goes on"].all()
        expected = "`about['ratio']` is 0.2 in the checkpoint, 0.3 here"
        assert expected in str(process["refused"])


def test_one_process_of_four_workers_goes_on_from_two_of_eight(seen, folder):
    plan, begun = planned("top_k", 4)
    with gmc_jax.Checkpoints(
        folder / "checkpoints", plan, about={"ratio": 0.2}
    ) as saved:
        with pytest.raises(ValueError, match="is of 8 workers, and `layout` of 4"):
            saved.restore(plan.lay_out(begun))
        _, (params, opt_state), _ = saved.restore(plan.lay_out(begun), resize=True)
    residual = optax.tree.get(opt_state, "residual")
    for name, leaf in params.items():
        np.testing.assert_array_equal(leaf, seen[0][f"saved params {name}"])
        before = seen[0][f"saved residual {name}"]
        assert np.ptp(before, axis=0).max() > 0
        expected = np.broadcast_to(before.mean(axis=0), residual[name].shape)
        np.testing.assert_allclose(residual[name], expected, rtol=1e-6, atol=1e-7)
    batch = {name: leaf[1, :4] for name, leaf in batches("top_k").items()}
    run, _ = gmc_jax.simulate(step_of(METHODS["top_k"]), begun, batch, 4)
    _, metrics = run((params, opt_state), batch)
    assert np.isfinite(metrics["loss"]).all()
