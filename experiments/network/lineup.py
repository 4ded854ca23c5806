"""The methods that the laboratory compares."""

from typing import NamedTuple

import gmc_jax
from experiments.training.compression import Compression
from experiments.training.local_methods import FRAGMENTS, PERIOD
from experiments.training.methods import RANK
from gmc_jax import planning


class Entry(NamedTuple):
    """A method of the laboratory.

    Attributes:
      label: its name in tables and figures.
      method: a name in `METHODS`; None for a method of PyTorch.
      compressor: a name in `COMPRESSORS`, for methods that compress.
      learning_rate: at which this method learns the digits.
      period: steps from one synchronisation to the next.
      fragments: of which one synchronises at a time, in each period.
    """

    label: str
    method: str | None
    compressor: str = "top_k"
    learning_rate: float = 0.02
    period: int = 1
    fragments: int = 1

    def pattern(self, ratio: float) -> planning.Pattern:
        """The communication pattern that the planner predicts."""
        compression = Compression(self.compressor, ratio)
        channels = {
            "gmc": compression.channel(),
            "sparse_loco": gmc_jax.mean_of_senders(compression.code()),
            "sign_sgd": gmc_jax.majority_vote(),
            "gmc_two_phase": gmc_jax.two_phase(gmc_jax.integers(8)),
            "power_sgd": gmc_jax.low_rank(RANK),
        }
        channel = channels.get(self.method or "", gmc_jax.exact())
        sync = planning.Sync(channel, period=self.period, fragments=self.fragments)
        return planning.Pattern(self.label, (sync,))


LINEUP = {
    "dense": Entry("momentum SGD, dense", "dmsgd"),
    "top_k": Entry("GMC, top_k", "gmc"),
    "sampled_top_k": Entry("GMC, sampled_top_k", "gmc", "sampled_top_k"),
    "random_block": Entry("GMC, random_block", "gmc", "random_block"),
    "two_phase": Entry("GMC, 8 bits both ways", "gmc_two_phase"),
    "power_sgd": Entry("PowerSGD", "power_sgd", learning_rate=0.01),
    "vote": Entry("signSGD, vote", "sign_sgd", learning_rate=1e-4),
    "slowmo": Entry("SlowMo", "slowmo", period=PERIOD),
    "streaming_diloco": Entry(
        "Streaming DiLoCo",
        "streaming_diloco",
        learning_rate=0.003,
        period=PERIOD,
        fragments=FRAGMENTS,
    ),
    "sparse_loco": Entry(
        "SparseLoCo", "sparse_loco", learning_rate=0.003, period=PERIOD
    ),
    "ddp": Entry("PyTorch DDP, dense", None),
    "ddp_fp16": Entry("PyTorch DDP, fp16", None),
}

OURS = tuple(name for name, entry in LINEUP.items() if entry.method)


def label(name: str) -> str:
    """An entry's label in tables and figures; its name if there is no such entry."""
    return LINEUP[name].label if name in LINEUP else name
