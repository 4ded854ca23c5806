"""The options of `network`: each field is a command-line option."""

import dataclasses
from pathlib import Path

from experiments.network.counters import LOOPBACK
from experiments.network.lineup import LINEUP, OURS, Entry
from experiments.network.namespaces import FASTEST, SLOWEST
from experiments.training.config import Config
from experiments.utils.units import bytes_per_second
from gmc_jax.utils import checks


@dataclasses.dataclass(frozen=True)
class Network:
    """Train over links of given rates; measure bytes and seconds."""

    hosts: int = 4
    """The number of hosts, with one worker each."""
    rates: tuple[str, ...] = ("10mbit", "100mbit", "1gbit", "unshaped")
    """The rates of the links in each direction, as `tc` writes them, or unshaped."""
    model: str = "mlp_10m"
    """The network: mlp_1m or mlp_10m, of one or ten million parameters, or mlp."""
    ratio: float = 0.001
    """The share of the entries that a message holds."""
    methods: tuple[str, ...] = OURS
    """The methods: dense, top_k, sampled_top_k, random_block, two_phase, power_sgd,
    vote, slowmo, streaming_diloco, sparse_loco.
    With PyTorch (the extra `bench`) also ddp and ddp_fp16."""
    batch_size: int = 16
    """Samples in the batch of one worker."""
    seconds: float = 20.0
    """Approximate training time of a method at a rate; at least three periods."""
    interface: str | None = None
    """The interface whose bytes are counted; by default all but the loopback."""
    results: Path = Path("results")
    """The directory of results; this run's is `network/run-001` or a later one."""
    report: Path | None = None
    """A file for the rows, instead of a directory; for `network`'s own use."""

    def __post_init__(self):
        """Refuses unknown names, and values out of range."""
        checks.positive_int(hosts=self.hosts, batch_size=self.batch_size)
        checks.fraction(ratio=self.ratio)
        checks.positive(seconds=self.seconds)
        if not self.rates or not self.methods:
            raise ValueError("`rates` and `methods` must each name at least one.")
        for name in ("rates", "methods"):
            named = getattr(self, name)
            if len(set(named)) < len(named):
                raise ValueError(f"`{name}` must name nothing twice, got {named}.")
        for rate in self.rates:
            self._check_rate(rate)
        for name in self.methods:
            if name not in LINEUP:
                raise ValueError(
                    f"`methods` must be among {', '.join(LINEUP)}, got {name!r}."
                )
            self.config(LINEUP[name])  # It refuses an unknown model.

    def config(self, entry: Entry) -> Config:
        """The configuration of the training with one of our methods."""
        return Config(
            model=self.model,
            methods=(entry.method or "dmsgd",),
            compressor=entry.compressor,
            ratio=self.ratio,
            workers=self.hosts,
            partition="iid",
            batch_size=self.batch_size,
            learning_rate=entry.learning_rate,
            schedule="constant",
            count=False,
            backend="distribute",
        )

    @staticmethod
    def _check_rate(rate: str) -> None:
        if rate == LOOPBACK:
            return
        speed = bytes_per_second(rate)
        if not SLOWEST <= speed <= FASTEST and speed != float("inf"):
            raise ValueError(
                "`rates` must be from 1kbit to 80gbit, which `tc` can set, or "
                f"unshaped, got {rate!r}."
            )
