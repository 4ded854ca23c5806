"""What the laboratory is asked for; its fields are the command-line options."""

import dataclasses
from pathlib import Path

from experiments.network.counters import LOOPBACK
from experiments.network.lineup import CONTENDERS, OURS, Contender
from experiments.network.namespaces import FASTEST, SLOWEST
from experiments.training.config import Config
from experiments.utils.units import bytes_per_second
from gmc_jax.utils import checks


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
        checks.positive_int(hosts=self.hosts, batch_size=self.batch_size)
        checks.fraction(ratio=self.ratio)
        checks.positive(seconds=self.seconds)
        if not self.rates or not self.methods:
            raise ValueError("`rates` and `methods` must each name one at least.")
        for name in ("rates", "methods"):
            named = getattr(self, name)
            if len(set(named)) < len(named):
                raise ValueError(f"`{name}` must name nothing twice, but is {named}.")
        for rate in self.rates:
            self._check_rate(rate)
        for name in self.methods:
            if name not in CONTENDERS:
                raise ValueError(
                    f"`methods` names {name!r}, which is none of "
                    f"{', '.join(CONTENDERS)}."
                )
            self.config(CONTENDERS[name])  # Which refuses a model that is none.

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

    @staticmethod
    def _check_rate(rate: str) -> None:
        if rate == LOOPBACK:
            return
        speed = bytes_per_second(rate)
        if not SLOWEST <= speed <= FASTEST and speed != float("inf"):
            raise ValueError(
                f"`rates` names {rate!r}, which `tc` cannot set on a link. Name rates "
                "from 1kbit to 80gbit, or unshaped."
            )
