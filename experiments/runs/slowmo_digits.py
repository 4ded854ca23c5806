"""SlowMo over six inner optimizers on handwritten digits.

The inner optimizers are local SGD, local Adam, SGP, OSGP, D-PSGD and all-reduce SGD,
each with several slow momenta; 0 is the baseline. All synchronise every 12 steps. The
learning rate is one at which local SGD does well. Workers are IID.

Command: python -m experiments run slowmo_digits

Time: 12 minutes on 1 CPU core, shared with other work

Expect: with each inner optimizer and for every seed, a training loss two to forty times
lower; a larger slow momentum makes it lower. Test accuracy is 97.7 % to 98.5 % for all,
since 517 images cannot tell them apart.
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
