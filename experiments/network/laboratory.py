"""The command `network`: trains over links of given rates, and counts on them."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from rich.console import Console

from experiments import record, tasks
from experiments.config import Config
from experiments.hosts.gather import gather
from experiments.hosts.launch import exit_on_termination
from experiments.network import calibrate, report, rows
from experiments.network.conduct import conduct
from experiments.network.contenders import CONTENDERS, OURS, Contender
from experiments.network.counters import LOOPBACK
from experiments.network.measure import measure
from experiments.record import Row
from experiments.units import bytes_per_second
from gmc_jax import checks


@dataclasses.dataclass(frozen=True)
class Network:
    """Train over links of given rates, and count bytes and seconds on them."""

    hosts: int = 4
    """How many hosts, of one worker each."""
    rates: tuple[str, ...] = ("10mbit", "100mbit", "1gbit", "unshaped")
    """Of every link in each direction, as `tc` writes them; or unshaped."""
    model: str = "mlp_10m"
    """The network: mlp_1m or mlp_10m, of one or ten million parameters, or mlp."""
    ratio: float = 0.001
    """The share of the entries that a message holds."""
    methods: tuple[str, ...] = OURS
    """What to compare: dense, top_k, sampled_top_k, random_block, vote, slowmo, and
    with PyTorch (the extra `bench`) ddp and ddp_fp16."""
    batch_size: int = 16
    """Samples a worker and step."""
    seconds: float = 20.0
    """How long each method trains at each rate, about; three steps at the least."""
    interface: str | None = None
    """Whose bytes are counted; all interfaces but the loopback if it is not told."""
    results: Path = Path("results")
    """Where a new directory, `network/run-001` or a later number, is made."""
    report: Path | None = None
    """A file for what all hosts saw, in place of a directory: for its own use."""

    def __post_init__(self):
        """Refuses what is no laboratory."""
        checks.positive(hosts=self.hosts, batch_size=self.batch_size)
        checks.fraction(ratio=self.ratio)
        checks.magnitude(seconds=self.seconds)
        if not self.rates or not self.methods:
            raise ValueError("`rates` and `methods` must each name one at least.")
        for rate in self.rates:
            if rate != LOOPBACK:
                bytes_per_second(rate)
        for name in self.methods:
            if name not in CONTENDERS:
                raise ValueError(
                    f"`methods` names {name!r}, which is none of "
                    f"{', '.join(CONTENDERS)}."
                )

    def config(self, contender: Contender) -> Config:
        """The training with one method of ours."""
        return Config(
            model=self.model,
            methods=(contender.method or "dmsgd",),
            compressor=contender.compressor,
            ratio=self.ratio,
            workers=self.hosts,
            partition="iid",
            batch_size=self.batch_size,
            learning_rate=contender.learning_rate,
            schedule="constant",
            count=False,
            backend="distribute",
        )


def main(config: Network) -> None:
    """Runs the laboratory; as one of several processes, this host's part of it.

    On hosts of a real network it is `join ... network --rates unshaped`.
    """
    if not jax.distributed.is_initialized():
        exit_on_termination()
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
    record.prepare(config.results)
    facts = dataclasses.asdict(config)
    with record.create(config.results / "network", "run", facts) as log:
        for row in seen:
            log.append(kind="measurement", **row)
        report.show(log, Console())


def take_part(config: Network) -> Iterator[Row]:
    """Measures the methods of ours in this process, together with the others.

    Yields:
      A row for each method, of all hosts together, the same in all processes.
    """
    (rate,) = config.rates
    capacity = float("inf") if rate == LOOPBACK else bytes_per_second(rate)
    first = config.config(CONTENDERS[config.methods[0]])
    task = tasks.build(first, first.seed)
    link = calibrate.link(config.hosts, capacity)
    for name in config.methods:
        contender = CONTENDERS[name]
        training = config.config(contender)
        own = measure(contender, task, training, config.seconds, config.interface)
        row = rows.of_all(gather(own), config.interface == LOOPBACK)
        planned = calibrate.predict(contender, training, task.params, link)
        yield {"method": name, "rate": rate, **row, **planned}
