"""SlowMo over six bases on handwritten digits.

Each slow momentum beside its base, which is the slow momentum 0: local SGD, local Adam,
SGP, OSGP, D-PSGD and all-reduce SGD, all of which meet every 12 steps. The rate is one
at which local SGD does well. Workers are alike.

Command: python -m experiments run slowmo_digits

Time: not yet run

Expect: in the paper SlowMo is ahead of each of its bases.
"""

from experiments.config import Config
from experiments.local_methods import BASES, SLOW_MOMENTA

config = Config(
    methods=tuple(f"slowmo_{base}_{beta}" for base in BASES for beta in SLOW_MOMENTA),
    partition="iid",
    epochs=30,
    evaluations=6,
    learning_rates=tuple((f"slowmo_local_adam_{beta}", 1e-3) for beta in SLOW_MOMENTA),
    seeds=3,
)
