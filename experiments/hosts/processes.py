"""Runs processes that need each other: when one fails, all end, with one error."""

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
from experiments.utils import signals

_POLL = 0.02  # Seconds.
_LINES = 60  # Of a failed process's output are shown at most.


class Command(NamedTuple):
    """What one process runs.

    Attributes:
      arguments: of the program, itself the first.
      environment: variables on top of those of this process.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = {}


class ProcessFailed(Exception):
    """One of several processes failed, and the others were stopped.

    Attributes:
      index: of the first that failed.
      code: its exit status; minus the number of the signal that ended it.
      output: what it wrote to its standard error.
      how: it ended.
    """

    def __init__(self, index: int, count: int, code: int, output: str):
        """Says which one failed, how, and with which words."""
        self.index, self.code, self.output = index, code, output
        self.how = f"ended with the exit status {code}"
        if code < 0:
            self.how = f"was killed by {signal.Signals(-code).name}"
        lines = causes.readable(output).splitlines()[-_LINES:]
        who = f"process {index} of {count} {self.how}, and the others were stopped."
        super().__init__("\n".join([who, *lines]))

    @property
    def status(self) -> int:
        """The exit status for a process that ends because of this, as shells count."""
        return self.code if self.code > 0 else 128 - self.code


@contextlib.contextmanager
def started(commands: Sequence[Command]) -> Iterator["Group"]:
    """Starts processes, all of which have ended when the block is left."""
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
                        # Ctrl-C is for this process to hear, which then stops them.
                        start_new_session=True,
                    )
                )
            yield group
        finally:
            group.kill()
            if recorded.exists() and (path := recorded.read_text()):
                signals.recording(Path(path))


class Group:
    """Processes that run together.

    Attributes:
      running: the processes.
    """

    def __init__(self, running: list[subprocess.Popen], logs: Sequence[Path]):
        """Of processes whose standard errors go to files."""
        self.running = running
        self._logs = logs
        self._heard = [0] * len(logs)

    def wait(
        self,
        seconds: float | None = None,
        hear: Callable[[bytes], object] = lambda said: None,
    ) -> None:
        """Waits until all have ended well.

        Args:
          seconds: to wait at most; as long as it takes if it is not told.
          hear: is given what they write to their standard errors, as they do.

        Raises:
          ProcessFailed: as soon as one has not; the others are stopped.
          TimeoutError: if they take longer than `seconds`; they are stopped.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while None in (codes := [process.poll() for process in self.running]):
            if any(codes):
                break
            signals.raise_again()
            if end is not None and time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"processes still ran after {seconds} seconds")
            self._pass_on(hear)
            time.sleep(_POLL)
        self._pass_on(hear)
        failed = {index: code for index, code in enumerate(codes) if code}
        if failed:
            self.kill()
            first = min(failed, key=lambda index: self._blame(index, failed[index]))
            raise ProcessFailed(first, len(codes), failed[first], self.output(first))

    def output(self, index: int) -> str:
        """What a process wrote to its standard error so far."""
        return self._logs[index].read_text(errors="replace").strip()

    def kill(self) -> None:
        """Ends those that still run, and what they have started."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.running:
            process.wait()

    def _pass_on(self, hear: Callable[[bytes], object]) -> None:
        for index, log in enumerate(self._logs):
            if log.stat().st_size > self._heard[index]:
                with log.open("rb") as file:
                    file.seek(self._heard[index])
                    hear(said := file.read())
                self._heard[index] += len(said)

    def _blame(self, index: int, code: int) -> tuple[bool, float]:
        """The first to fail sorts first: the errors of the others come of it.

        Whoever is killed from outside has no last word. The others write theirs when
        they fail (XLA ends itself by SIGABRT).
        """
        from_outside = code < 0 and code != -signal.SIGABRT
        return not from_outside, self._logs[index].stat().st_mtime


def python(*arguments: str) -> list[str]:
    """The command that runs this Python with arguments."""
    return [sys.executable, *arguments]
