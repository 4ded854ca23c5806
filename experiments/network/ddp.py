"""Trains with PyTorch's DistributedDataParallel on the same links, model and batches.

The laboratory runs it once a host, as `python -m experiments.network.ddp OPTIONS`. It
needs PyTorch: `pip install -e ".[bench]"`. The PowerSGD hook is left out: over Gloo
(torch 2.13) and with a million parameters, it hung.
"""

import copy
import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.network import counters, measurements
from experiments.training import tasks
from experiments.training.config import Config

torch: Any = importlib.import_module("torch")  # Types would need it to be installed.
distributed: Any = importlib.import_module("torch.distributed")
hooks: Any = importlib.import_module(
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks"
)
parallel: Any = importlib.import_module("torch.nn.parallel")

_WARM_UP = 2  # Steps; the first one connects the processes.


@dataclass(frozen=True)
class Member:
    """The options of one process on its host."""

    coordinator: str
    """The address and port of process 0."""
    hosts: int
    """The number of processes."""
    host: int
    """The index of this process."""
    method: str
    """The method: ddp or ddp_fp16."""
    model: str
    """The network: mlp, mlp_1m or mlp_10m, with the layers of the Flax network."""
    batch_size: int
    """Samples in the batch of one worker."""
    learning_rate: float
    """The learning rate of momentum SGD."""
    seconds: float
    """The approximate time of the training."""
    report: Path
    """The file to which process 0 writes the rows of all processes."""
    interface: str | None = None
    """The interface whose bytes are counted."""


def main(member: Member) -> None:
    """Trains and measures; process 0 writes the report."""
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://{member.coordinator}",
        rank=member.host,
        world_size=member.hosts,
    )
    row = train(member)
    rows = [None] * member.hosts
    distributed.all_gather_object(rows, row)
    if member.host == 0:
        member.report.write_text(json.dumps(rows))
    distributed.destroy_process_group()


def train(member: Member) -> dict[str, Any]:
    """Does in PyTorch what `experiments.network.measure.measure` does."""
    config = Config(
        model=member.model,
        workers=member.hosts,
        partition="iid",
        batch_size=member.batch_size,
    )
    task = tasks.build(config, config.seed)
    images, labels = (torch.from_numpy(np.array(x[member.host])) for x in task.share)
    images = images.reshape(len(images), -1).float() / images.max()
    network = layers(task.params)
    size = sum(weights.numel() for weights in network.parameters())
    model = parallel.DistributedDataParallel(network)
    sent = compress(model, member.method)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=member.learning_rate, momentum=0.9
    )
    loss_of = torch.nn.CrossEntropyLoss()

    def step(number: int) -> float:
        draw = task.draws(number, number + 1)
        chosen = torch.from_numpy(draw.chosen[0, member.host].astype(np.int64))
        optimizer.zero_grad()
        loss = loss_of(model(images[chosen]), labels[chosen].long())
        loss.backward()
        optimizer.step()
        return float(loss)

    start = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    for number in range(_WARM_UP - 1):
        step(number)
    began = time.perf_counter()
    step(_WARM_UP - 1)
    seconds = torch.tensor([time.perf_counter() - began])
    distributed.broadcast(seconds, 0)  # All processes must take as many steps.
    steps = measurements.steps_for(float(seconds), member.seconds)
    network.load_state_dict(start[0])
    optimizer.load_state_dict(start[1])
    distributed.barrier()
    before = counters.read(member.interface)
    began = time.perf_counter()
    ends, losses = [], []
    for number in range(steps):
        losses.append(step(number))
        ends.append(time.perf_counter() - began)
    return measurements.of_one(
        counters.since(before, member.interface),
        ends,
        losses,
        message_bytes=sent,
        wire_bytes=sent,
        dense_bytes=4 * size,
    )


def compress(model: Any, method: str) -> float:
    """Registers a method's hook; returns a process's bytes in all-reduces a step."""
    dense = 4 * sum(leaf.numel() for leaf in model.parameters())
    if method == "ddp_fp16":
        model.register_comm_hook(None, hooks.fp16_compress_hook)
        return dense / 2
    return dense


def layers(params: dict[str, Any]) -> Any:
    """Makes a perceptron with the layers of the Flax network of these parameters."""
    made = []
    for layer in params.values():
        inputs, outputs = layer["kernel"].shape
        made += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*made[:-1])


if __name__ == "__main__":
    main(tyro.cli(Member))
