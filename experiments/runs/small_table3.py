"""The GMC paper's Table 3 for a CPU: random blocks, five values of lambda.

DEF-A and GMC+ use five values of lambda and blocks of 1/64, as in the paper. They train
a small transformer on CIFAR-10 for three epochs, with one seed. Workers are IID.

Command: python -m experiments run small_table3

Time: 45 minutes on 1 CPU core

Expect: with lambda 0 DEF-A diverges, and GMC+ stays at a test accuracy of 10.3 %. With
lambda 0.3 DEF-A has 22.5 % and GMC+ 41.1 %; with 0.5, 42.7 % and 40.5 %; with 1, 40.7 %
and 38.8 %. In the paper, after 200 epochs, both nearly fail with 0, and GMC+ is ahead
from 0.3 on.
"""

import dataclasses

from experiments.paper.settings import EVERY_DETACHMENT
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
