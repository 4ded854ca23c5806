"""Trains over links of given rates, and measures bytes and seconds."""

import dataclasses
import json
from collections.abc import Iterable, Iterator

import jax
from rich.console import Console

from experiments.hosts.gather import gather
from experiments.network import calibrate, measurements, report
from experiments.network.counters import LOOPBACK
from experiments.network.lineup import LINEUP
from experiments.network.measure import measure
from experiments.network.options import Network
from experiments.network.orchestrate import orchestrate
from experiments.training import record, tasks
from experiments.training.record import Row
from experiments.utils import signals
from experiments.utils.units import bytes_per_second


def main(config: Network) -> None:
    """Runs the laboratory or, in one of several processes, this host's part of it.

    On the hosts of a real network, run `join ... network --rates unshaped`.
    """
    if not jax.distributed.is_initialized():
        signals.unwind()
        keep(orchestrate(config, Console()), config)
    elif jax.process_index():
        for _ in take_part(config):
            pass
    elif config.report:
        config.report.write_text(json.dumps(list(take_part(config))))
    else:
        keep(take_part(config), config)


def keep(measured: Iterable[Row], config: Network) -> None:
    """Records rows as they arrive; then prints and draws all of them."""
    record.prepare(config.results / "network")
    facts = dataclasses.asdict(config)
    with record.create(config.results / "network", "run", facts) as log:
        for row in measured:
            log.append(kind="measurement", **row)
    report.STUDY.show(log.path)


def take_part(config: Network) -> Iterator[Row]:
    """Measures our methods in this process, together with the other processes.

    Yields:
      A row for each method, over all hosts; it is the same in all processes.

    Raises:
      ValueError: if there is not exactly one rate.
    """
    if len(config.rates) != 1:
        raise ValueError(
            "`rates` must name one rate under `join`, which cannot shape links, got "
            f"{len(config.rates)}. Use `--rates unshaped`."
        )
    (rate,) = config.rates
    capacity = float("inf") if rate == LOOPBACK else bytes_per_second(rate)
    first = config.config(LINEUP[config.methods[0]])
    task = tasks.build(first, first.seed)
    link = calibrate.link(config.hosts, capacity)
    for name in config.methods:
        entry = LINEUP[name]
        training = config.config(entry)
        own = measure(entry, task, training, config.seconds, config.interface)
        row = measurements.of_all(gather(own), config.interface == LOOPBACK)
        planned = calibrate.predict(entry, training, task.params, link)
        yield {"method": name, "rate": rate, **row, **planned}
