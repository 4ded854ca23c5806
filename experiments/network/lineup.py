"""What trains in the laboratory: a method, and through what it sends."""

from typing import NamedTuple

import gmc_jax
from experiments.training.compression import Messages
from experiments.training.local_methods import PERIOD
from gmc_jax import planning


class Contender(NamedTuple):
    """A method as the laboratory runs it.

    Attributes:
      label: in tables and figures.
      method: a name in `METHODS`; None for one of PyTorch.
      compressor: a name in `COMPRESSORS`, of the methods that have one.
      learning_rate: at which this method learns the digits.
      period: steps between two meetings.
    """

    label: str
    method: str | None
    compressor: str = "top_k"
    learning_rate: float = 0.02
    period: int = 1

    def pattern(self, ratio: float) -> planning.Pattern:
        """What it does on the link."""
        channels = {
            "gmc": Messages(self.compressor, ratio).channel(),
            "sign_sgd": gmc_jax.majority_vote(),
        }
        channel = channels.get(self.method or "", gmc_jax.exact())
        sync = planning.Sync(channel, period=self.period)
        return planning.Pattern(self.label, (sync,))


CONTENDERS = {
    "dense": Contender("momentum SGD, dense", "dmsgd"),
    "top_k": Contender("GMC, top_k", "gmc"),
    "sampled_top_k": Contender("GMC, sampled_top_k", "gmc", "sampled_top_k"),
    "random_block": Contender("GMC, random_block", "gmc", "random_block"),
    "vote": Contender("signSGD, vote", "sign_sgd", learning_rate=1e-4),
    "slowmo": Contender("SlowMo", "slowmo", period=PERIOD),
    "ddp": Contender("PyTorch DDP, dense", None),
    "ddp_fp16": Contender("PyTorch DDP, fp16", None),
}

OURS = tuple(name for name, contender in CONTENDERS.items() if contender.method)


def label(name: str) -> str:
    """What tables and figures call a contender; its name, if a later version had it."""
    return CONTENDERS[name].label if name in CONTENDERS else name
