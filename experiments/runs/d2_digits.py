"""D2 and D-PSGD where each worker holds one label or two.

Handwritten digits sorted by label, 8 workers in a ring, a constant rate and no
momentum; all-reduce SGD beside them. Both send the same: D-PSGD on the ring, D2 on the
lazy ring, whose smallest eigenvalue allows it.

Command: python -m experiments run d2_digits

Time: 90 seconds on 1 CPU core, shared with other work

Expect: D-PSGD 96.6 % of test accuracy, D2 98.4 % and all-reduce 98.3 %, with training
losses of 0.093, 0.032 and 0.035; each of three seeds agrees on the order of the first
two.
"""

from experiments.training.config import Config

config = Config(
    methods=("d_psgd", "d2", "dmsgd"),
    partition="by_label",
    learning_rate=0.1,
    learning_rates=(),
    schedule="constant",
    momentum=0.0,
    epochs=30,
    evaluations=10,
    seeds=3,
)
