"""SlowMo over local Adam on text, character by character.

A transformer of 79,000 parameters reads windows of 64 characters; workers are alike and
meet every 12 steps. In place of the translation task of the paper, whose base is local
Adam too. It reads any text, `--text-file X.txt`.

Command: python -m experiments run slowmo_text

Time: not yet run

Expect: in the paper SlowMo is ahead of each of its bases.
"""

import dataclasses

from experiments.local_methods import SLOW_MOMENTA
from experiments.runs.slowmo_digits import config as slowmo_digits

config = dataclasses.replace(
    slowmo_digits,
    data="text",
    model="characters",
    methods=tuple(f"slowmo_local_adam_{beta}" for beta in SLOW_MOMENTA),
    epochs=5,
    judge_on=500,
)
