"""Non-IID CIFAR-10 for a CPU at 0.1 %, as `small_vit_sparse`, each at its own rate.

GMC, GMC+ and DEF-A, the latter two with lambda 0.3, at the best of the rates 0.05, 0.1,
0.2 and 0.4 in runs of three epochs.

Command: python -m experiments run small_vit_tuned

Time: 14 to 17 minutes a method on 1 CPU core, shared with other work

Expect: GMC 44.7 % of test accuracy, GMC+ 48.5 %, DEF-A 48.8 % (50.0 % at 0.05).
"""

import dataclasses

from experiments.runs.small_vit_sparse import config as small_vit_sparse

config = dataclasses.replace(
    small_vit_sparse,
    methods=("gmc", "gmc_plus_0.3", "def_a"),
    learning_rates=(("gmc", 0.2), ("gmc_plus_0.3", 0.2), ("def_a", 0.1)),
)
