"""SlowMo over local SGD on CIFAR-10, for a CPU.

The transformer of `small_vit`; workers are alike and meet every 12 steps.

Command: python -m experiments run slowmo_cifar10

Time: not yet run

Expect: in the paper SlowMo is ahead of each of its bases.
"""

import dataclasses

from experiments.local_methods import SLOW_MOMENTA
from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(
    small_vit,
    methods=tuple(f"slowmo_local_sgd_{beta}" for beta in SLOW_MOMENTA[:3]),
    partition="iid",
    epochs=2,
    evaluations=4,
    seeds=3,
)
