"""Non-IID CIFAR-10 for a CPU, as `small_vit`, at the paper's 0.1 % of the entries.

Twelve epochs are 4,680 steps, and a message holds 320 of 319,402 entries.

Command: python -m experiments run small_vit_sparse

Time: not yet run; by `small_vit`, one to two hours on 2 CPU cores

Expect: not known yet.
"""

import dataclasses

from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(small_vit, ratio=0.001, epochs=12)
