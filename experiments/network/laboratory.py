"""The command `network`: trains over links of given rates, and counts on them."""

import dataclasses
import json
from collections.abc import Iterable, Iterator

import jax
from rich.console import Console

from experiments.hosts.gather import gather
from experiments.network import calibrate, measurements, report
from experiments.network.counters import LOOPBACK
from experiments.network.lineup import CONTENDERS
from experiments.network.measure import measure
from experiments.network.options import Network
from experiments.network.orchestrate import conduct
from experiments.training import record, tasks
from experiments.training.record import Row
from experiments.utils import signals
from experiments.utils.units import bytes_per_second


def main(config: Network) -> None:
    """Runs the laboratory; as one of several processes, this host's part of it.

    On hosts of a real network it is `join ... network --rates unshaped`.
    """
    if not jax.distributed.is_initialized():
        signals.unwind()
        keep(conduct(config, Console()), config)
    elif jax.process_index():
        for _ in take_part(config):
            pass
    elif config.report:
        config.report.write_text(json.dumps(list(take_part(config))))
    else:
        keep(take_part(config), config)


def keep(seen: Iterable[Row], config: Network) -> None:
    """Writes rows as they come, and shows all of them."""
    record.prepare(config.results / "network")
    facts = dataclasses.asdict(config)
    with record.create(config.results / "network", "run", facts) as log:
        for row in seen:
            log.append(kind="measurement", **row)
    report.STUDY.show(log.path)


def take_part(config: Network) -> Iterator[Row]:
    """Measures the methods of ours in this process, together with the others.

    Yields:
      A row for each method, of all hosts together, the same in all processes.
    """
    if len(config.rates) != 1:
        raise ValueError(
            f"`rates` names {len(config.rates)}, and the links between processes that "
            "have joined are what they are. Use `--rates unshaped`."
        )
    (rate,) = config.rates
    capacity = float("inf") if rate == LOOPBACK else bytes_per_second(rate)
    first = config.config(CONTENDERS[config.methods[0]])
    task = tasks.build(first, first.seed)
    link = calibrate.link(config.hosts, capacity)
    for name in config.methods:
        contender = CONTENDERS[name]
        training = config.config(contender)
        own = measure(contender, task, training, config.seconds, config.interface)
        row = measurements.of_all(gather(own), config.interface == LOOPBACK)
        planned = calibrate.predict(contender, training, task.params, link)
        yield {"method": name, "rate": rate, **row, **planned}
