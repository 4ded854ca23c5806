"""Non-IID CIFAR-10 for a CPU, as in `small_vit`, with the paper's 0.1 % of the entries.

Twelve epochs have 4,680 steps. A message holds 320 of 319,402 entries.

Command: python -m experiments run small_vit_sparse

Time: 15 to 24 minutes a method on 1 CPU core, shared with other work

Expect: test accuracy 60.2 % dense, 50.0 % with DEF-A, 44.9 % with masked DGC, 44.8 %
with DGC, 44.1 % with CSER and 42.7 % with GMC; RCC 0.88 to 0.9 %, CSER 0.66 %.
`small_vit_tuned` and results/README.md explain why GMC is not first here.
"""

import dataclasses

from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(small_vit, ratio=0.001, epochs=12)
