"""One process of several that train together, which another one watches."""

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
"""The variable that names the process without which this one has no purpose."""


def take_part(
    config: Join, command: Sequence[str], run: Callable[[Sequence[str]], None]
) -> None:
    """Joins the others and runs a command, with the words of process 0 alone.

    Args:
      config: who and where the others are.
      command: of `python -m experiments`, with its options.
      run: what runs it.
    """
    signals.end_in_silence()
    _end_with_parent()
    jax.config.update("jax_num_cpu_devices", config.devices_per_host)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler in C++ swallows SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    waiting = preflight.patient(
        f"Waits for the other processes, for {config.patience} seconds at most "
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
            "no scheduler of a cluster says where the other processes are. Name "
            f"`--coordinator ADDRESS:PORT --hosts N --host I`. ({error})"
        )
    _speak(first=jax.process_index() == 0)
    try:
        run(command)
    except SystemExit as end:
        if isinstance(end.code, str):
            _fail(end.code)
        if end.code:
            os._exit(end.code)  # Its words are said.
    except BaseException as error:
        _fail(_words(error))
    jax.distributed.shutdown()


def _speak(first: bool) -> None:
    """Lets the first process print, and nobody's libraries."""
    silence = os.open(os.devnull, os.O_WRONLY)
    spoken = os.dup(sys.stdout.fileno()) if first else silence
    # Gloo prints its connections to the standard output whatever one tells it.
    os.dup2(silence, sys.stdout.fileno())
    sys.stdout = os.fdopen(spoken, "w", buffering=1)


def _fail(words: str) -> NoReturn:
    """Ends at once: others wait in collectives, and at the exit for each other."""
    terminal.note(words)
    os._exit(1)


def _words(error: BaseException) -> str:
    lost = r"Gloo [\w-]+ failed|heartbeat|coordination service"
    if re.search(lost, str(error)):
        return (
            f"{str(error).splitlines()[0]}\n"
            f"process {jax.process_index()} of {jax.process_count()} has lost another "
            "one, which must have failed or been killed: its own output says why."
        )
    return "".join(traceback.format_exception(error)).strip()


def _end_with_parent() -> None:
    """Whoever was started by `launch` or `network` is not to outlive it (on Linux)."""
    parent = os.environ.get(PARENT)
    if parent and sys.platform == "linux":
        deliver_when_parent_dies = 1  # PR_SET_PDEATHSIG of prctl(2).
        ctypes.CDLL(None).prctl(deliver_when_parent_dies, signal.SIGKILL)
        if os.getppid() != int(parent):
            os._exit(1)
