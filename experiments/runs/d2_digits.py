"""D2 and D-PSGD with workers that hold one label or two each.

Handwritten digits are sorted by label and divided among 8 workers in a ring. The
learning rate is constant, without momentum. D-PSGD uses the ring, and D2 the lazy ring,
whose smallest eigenvalue is large enough for D2; both send the same bytes. All-reduce
SGD is the baseline.

Command: python -m experiments run d2_digits

Time: 90 seconds on 1 CPU core, shared with other work

Expect: test accuracy 96.6 % with D-PSGD, 98.4 % with D2 and 98.3 % with all-reduce;
training losses 0.093, 0.033 and 0.035. D2 is ahead of D-PSGD for each of three seeds.
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
