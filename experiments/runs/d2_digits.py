"""D2 and D-PSGD where each worker holds one label or two.

Handwritten digits sorted by label, 8 workers in a ring, a constant rate and no
momentum; all-reduce SGD beside them. Both send the same: D-PSGD on the ring, D2 on the
lazy ring, whose smallest eigenvalue allows it.

Command: python -m experiments run d2_digits

Time: not yet run

Expect: in the paper D2 is clearly better than D-PSGD where workers hold other labels.
"""

from experiments.config import Config

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
