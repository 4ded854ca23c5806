"""The process that trains together with the others; its parent watches it."""

import ctypes
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax

from experiments.hosts import preflight
from experiments.hosts.options import Join
from experiments.utils import signals, terminal

PARENT = "GMC_JAX_PARENT"
"""An environment variable: the id of the parent process, with which this one ends."""


def take_part(
    config: Join, command: Sequence[str], run: Callable[[Sequence[str]], None]
) -> None:
    """Joins the other processes and runs a command; only process 0 prints.

    Args:
      config: how many processes there are, and where.
      command: of `python -m experiments`, with its options.
      run: runs the command.
    """
    signals.end_in_silence()
    _end_with_parent()
    jax.config.update("jax_num_cpu_devices", config.devices_per_host)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # The service's handler in C++ swallows SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    waiting = preflight.patient(
        f"Waiting for the other processes, for at most {config.patience} seconds "
        "(`--patience`)."
    )
    try:
        with waiting:
            jax.distributed.initialize(
                config.coordinator,
                config.hosts,
                config.host,
                cluster_detection_method="deactivate" if config.coordinator else None,
                initialization_timeout=config.patience,
                heartbeat_timeout_seconds=config.heartbeat,
                shutdown_timeout_seconds=config.heartbeat,
            )
    except ValueError as error:
        if config.coordinator:
            raise
        _fail(
            "JAX found no cluster scheduler that names the other processes. Give "
            f"`--coordinator ADDRESS:PORT --hosts N --host I`. ({error})"
        )
    _redirect_output(first=jax.process_index() == 0)
    try:
        run(command)
    except SystemExit as end:
        if isinstance(end.code, str):
            _fail(end.code)
        if end.code:
            os._exit(end.code)  # The error is printed already.
    except BaseException as error:
        _fail(_describe(error))
    jax.distributed.shutdown()


def _redirect_output(first: bool) -> None:
    """Lets only Python in the first process write to the standard output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    output = os.dup(sys.stdout.fileno()) if first else nowhere
    # Gloo prints its connections to the standard output, and no setting stops it.
    os.dup2(nowhere, sys.stdout.fileno())
    sys.stdout = os.fdopen(output, "w", buffering=1)


def _fail(words: str) -> NoReturn:
    """Ends the process at once; a normal exit would wait for the other processes."""
    terminal.note(words)
    os._exit(1)


def _describe(error: BaseException) -> str:
    lost = r"Gloo [\w-]+ failed|heartbeat|coordination service"
    if re.search(lost, str(error)):
        return (
            f"{str(error).splitlines()[0]}\n"
            f"process {jax.process_index()} of {jax.process_count()} has lost another "
            "process, which failed or was killed. The other's own output says why."
        )
    return "".join(traceback.format_exception(error)).strip()


def _end_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends (on Linux)."""
    parent = os.environ.get(PARENT)
    if parent and sys.platform == "linux":
        deliver_when_parent_dies = 1  # PR_SET_PDEATHSIG of prctl(2).
        ctypes.CDLL(None).prctl(deliver_when_parent_dies, signal.SIGKILL)
        if os.getppid() != int(parent):
            os._exit(1)
