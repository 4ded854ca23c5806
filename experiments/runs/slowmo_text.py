"""SlowMo over local Adam on text, character by character.

A transformer of 79,000 parameters reads windows of 64 characters. Workers are IID and
synchronise every 12 steps. It stands in for the paper's translation task, which uses
local Adam too. Name any text: `--text-file X.txt`.

Command: python -m experiments run slowmo_text

Time: 43 minutes on 1 CPU core, shared with other work

Expect: test accuracy on the held-out tenth of a million characters of Shakespeare:
31.3 % without slow momentum, 32.9 % with 0.4, 32.6 % with 0.6 and 28.0 % with 0.8, all
within 0.5; training losses 2.351, 2.274, 2.288 and 2.466. SlowMo with 0.4 is ahead for
each of three seeds; 0.8 is too large for 50 synchronisations.
"""

import dataclasses

from experiments.runs.slowmo_digits import config as slowmo_digits
from experiments.training.local_methods import SLOW_MOMENTA

config = dataclasses.replace(
    slowmo_digits,
    data="text",
    model="characters",
    methods=tuple(f"slowmo_local_adam_{beta}" for beta in SLOW_MOMENTA),
    epochs=5,
    judge_on=500,
)
