"""The GMC paper's Table 3 for a CPU: random blocks, by how far gradients are detached.

DEF-A and GMC+ with five values of lambda and blocks of 1/64, as in the paper, but a
small transformer on CIFAR-10 for three epochs, one seed. Workers are alike.

Command: python -m experiments run small_table3

Time: not yet run; by `small_vit`, under an hour on 2 CPU cores

Expect: in the paper both nearly fail with lambda 0, and GMC+ is ahead from 0.3 on.
"""

import dataclasses

from experiments.paper import EVERY_DETACHMENT
from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(
    small_vit,
    methods=EVERY_DETACHMENT,
    partition="iid",
    compressor="random_block",
    ratio=1 / 64,
    epochs=3,
    evaluations=6,
)
