"""SlowMo over local SGD on CIFAR-10, for a CPU.

The transformer of `small_vit`, two epochs; workers are alike and meet every 12 steps.
The rate is smaller than in `small_vit`, since slow momentum lengthens steps; the base
does as well with it.

Command: python -m experiments run slowmo_cifar10

Time: 20 minutes on 1 CPU core

Expect: in the paper SlowMo is ahead of each of its bases.
"""

import dataclasses

from experiments.local_methods import SLOW_MOMENTA
from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(
    small_vit,
    methods=tuple(f"slowmo_local_sgd_{beta}" for beta in SLOW_MOMENTA[:2]),
    partition="iid",
    epochs=2,
    evaluations=4,
    learning_rate=0.02,
    seeds=3,
)
