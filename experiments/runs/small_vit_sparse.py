"""Non-IID CIFAR-10 for a CPU, as `small_vit`, at the paper's 0.1 % of the entries.

Twelve epochs are 4,680 steps, and a message holds 320 of 319,402 entries.

Command: python -m experiments run small_vit_sparse
Time: about an hour on 2 CPU cores; not yet run
Expect: all compressed methods far behind the dense one.
"""

import dataclasses

from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(small_vit, ratio=0.001, epochs=12)
