"""SlowMo over local SGD on CIFAR-10, for a CPU.

IID workers train the transformer of `small_vit` for two epochs and synchronise every 12
steps. The learning rate is smaller than in `small_vit`, since slow momentum makes steps
longer; local SGD is as good with it.

Command: python -m experiments run slowmo_cifar10

Time: 22 minutes on 1 CPU core, shared with other work

Expect: test accuracy 41.2 % without slow momentum and 42.7 % with 0.4; training losses
1.627 and 1.593. Slow momentum is ahead for each of three seeds. At a learning rate of
0.05 it is behind by half a point.
"""

import dataclasses

from experiments.runs.small_vit import config as small_vit
from experiments.training.local_methods import SLOW_MOMENTA

config = dataclasses.replace(
    small_vit,
    methods=tuple(f"slowmo_local_sgd_{beta}" for beta in SLOW_MOMENTA[:2]),
    partition="iid",
    epochs=2,
    evaluations=4,
    learning_rate=0.02,
    seeds=3,
)
