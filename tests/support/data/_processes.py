"""What the recordings share: their workers are processes of one machine.

The scripts beside this file import it; nothing of the project is imported.
"""

import concurrent.futures
import multiprocessing
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def of_each(work: Callable[..., Found], workers: int, *arguments: str) -> list[Found]:
    """What `work(*arguments, meeting, worker, workers)` returns in each process.

    `meeting` is the address of a file through which PyTorch's processes find each
    other; they then communicate over the loopback interface.
    """
    context = multiprocessing.get_context("spawn")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(workers, context) as pool,
    ):
        meeting = f"file://{pathlib.Path(folder) / 'meeting'}"
        futures = [
            pool.submit(work, *arguments, meeting, worker, workers)
            for worker in range(workers)
        ]
        return [future.result(timeout=300) for future in futures]
