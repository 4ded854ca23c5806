"""Runs processes that depend on each other: when one fails, all end with its error."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.hosts import causes
from experiments.training import record
from experiments.utils import signals

_POLL = 0.02  # Seconds.
_LINES = 60  # The most lines of a failed process's output that are shown.


class Command(NamedTuple):
    """What one process runs.

    Attributes:
      arguments: the program and its arguments.
      environment: variables that are added to those of this process.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = {}


class ProcessFailed(Exception):
    """One of several processes failed, and the others were stopped.

    Attributes:
      index: of the first process that failed.
      code: its exit status, or minus the number of the signal that ended it.
      output: its standard error.
      how: how it ended, in words.
    """

    def __init__(self, index: int, count: int, code: int, output: str):
        """Describes which process failed, how, and the end of its output."""
        self.index, self.code, self.output = index, code, output
        self.how = f"ended with the exit status {code}"
        if code < 0:
            self.how = f"was killed by {signal.Signals(-code).name}"
        lines = causes.readable(output).splitlines()[-_LINES:]
        who = f"process {index} of {count} {self.how}, and the others were stopped."
        super().__init__("\n".join([who, *lines]))

    @property
    def status(self) -> int:
        """The exit status for the parent, by the convention of shells."""
        return self.code if self.code > 0 else 128 - self.code


@contextlib.contextmanager
def started(commands: Sequence[Command]) -> Iterator["Group"]:
    """Starts processes for the length of a block, and kills those that still run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        running = []
        recorded = Path(folder) / "recorded"
        logs = [Path(folder) / str(index) for index in range(len(commands))]
        group = Group(running, logs)
        try:
            for command, log in zip(commands, logs, strict=True):
                running.append(
                    subprocess.Popen(
                        command.arguments,
                        env={
                            **os.environ,
                            signals.RECORD: str(recorded),
                            **command.environment,
                        },
                        stdin=subprocess.DEVNULL,
                        stderr=files.enter_context(log.open("w")),
                        # Ctrl-C must reach this process alone, which stops the others.
                        start_new_session=True,
                    )
                )
            yield group
        finally:
            group.kill()
            if recorded.exists() and (path := recorded.read_text()):
                signals.recording(Path(path), record.describe)


class Group:
    """Processes that run together.

    Attributes:
      running: the processes.
    """

    def __init__(self, running: list[subprocess.Popen], logs: Sequence[Path]):
        """Takes running processes, and the files that their standard errors go to."""
        self.running = running
        self._logs = logs
        self._passed = [0] * len(logs)

    def wait(
        self,
        seconds: float | None = None,
        on_output: Callable[[bytes], object] = lambda output: None,
    ) -> None:
        """Waits until all processes have ended with success.

        Args:
          seconds: the longest wait; None for no limit.
          on_output: is called with what the processes write to their standard errors.

        Raises:
          ProcessFailed: as soon as a process fails; the others are stopped.
          TimeoutError: if they take longer than `seconds`; all are stopped.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while None in (codes := [process.poll() for process in self.running]):
            if any(codes):
                break
            signals.raise_again()
            if end is not None and time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"processes still ran after {seconds} seconds")
            self._pass_on(on_output)
            time.sleep(_POLL)
        self._pass_on(on_output)
        failed = {index: code for index, code in enumerate(codes) if code}
        if failed:
            self.kill()
            first = min(failed, key=lambda index: self._blame(index, failed[index]))
            raise ProcessFailed(first, len(codes), failed[first], self.output(first))

    def output(self, index: int) -> str:
        """The standard error of a process so far."""
        return self._logs[index].read_text(errors="replace").strip()

    def kill(self) -> None:
        """Kills the processes that still run, and their children."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.running:
            process.wait()

    def _pass_on(self, on_output: Callable[[bytes], object]) -> None:
        for index, log in enumerate(self._logs):
            if log.stat().st_size > self._passed[index]:
                with log.open("rb") as file:
                    file.seek(self._passed[index])
                    on_output(output := file.read())
                self._passed[index] += len(output)

    def _blame(self, index: int, code: int) -> tuple[bool, float]:
        """A sort key: the first process that failed, which caused the other errors.

        A process that was killed from outside comes first, since it writes nothing.
        Other processes write their error when they fail; XLA ends itself by SIGABRT.
        """
        from_outside = code < 0 and code != -signal.SIGABRT
        return not from_outside, self._logs[index].stat().st_mtime


def python(*arguments: str) -> list[str]:
    """The command line that runs this Python with arguments."""
    return [sys.executable, *arguments]
