"""A look at whether everything works: two methods, four epochs.

Command: python -m experiments run digits_quick

Time: 10 seconds on 2 CPU cores

Expect: above 90 % of test accuracy for both, dense momentum SGD ahead. It is too short
to compare anything.
"""

from experiments.training.config import Config

config = Config(methods=("dmsgd", "gmc"), epochs=4, evaluations=4)
