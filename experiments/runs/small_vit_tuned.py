"""Non-IID CIFAR-10 for a CPU, as in `small_vit_sparse`, each method at its own rate.

GMC, GMC+ with lambda 0.3 and DEF-A with lambda 0.3 each use the best learning rate of
0.05, 0.1, 0.2 and 0.4 in runs of three epochs.

Command: python -m experiments run small_vit_tuned

Time: 14 to 17 minutes a method on 1 CPU core, shared with other work

Expect: test accuracy 44.7 % with GMC, 48.5 % with GMC+ and 48.8 % with DEF-A (50.0 % at
0.05).
"""

import dataclasses

from experiments.runs.small_vit_sparse import config as small_vit_sparse

config = dataclasses.replace(
    small_vit_sparse,
    methods=("gmc", "gmc_plus_0.3", "def_a"),
    learning_rates=(("gmc", 0.2), ("gmc_plus_0.3", 0.2), ("def_a", 0.1)),
)
