"""The run `digits` with IID workers: every share has all labels.

Command: python -m experiments run digits_iid

Time: 1 minute on 2 CPU cores

Expect: test accuracy between 97.5 % and 99.5 % with all six methods, as in `digits`,
and no order among them.
"""

from experiments.training.config import Config

config = Config(partition="iid")
