"""SlowMo over six bases on handwritten digits.

Each slow momentum beside its base, which is the slow momentum 0: local SGD, local Adam,
SGP, OSGP, D-PSGD and all-reduce SGD, all of which meet every 12 steps. The rate is one
at which local SGD does well. Workers are alike.

Command: python -m experiments run slowmo_digits

Time: 12 minutes on 1 CPU core, shared with other work

Expect: over each of the six bases a training loss two to forty times lower, the lower
the larger the slow momentum, for every seed. Not so test accuracy, 97.7 % to 98.5 %
throughout: the bases are as good as 517 images tell.
"""

from experiments.training.config import Config
from experiments.training.local_methods import BASES, SLOW_MOMENTA

config = Config(
    methods=tuple(f"slowmo_{base}_{beta}" for base in BASES for beta in SLOW_MOMENTA),
    partition="iid",
    epochs=30,
    evaluations=6,
    learning_rates=tuple((f"slowmo_local_adam_{beta}", 1e-3) for beta in SLOW_MOMENTA),
    seeds=3,
)
