"""A short test of the installation: two methods, four epochs.

Command: python -m experiments run digits_quick

Time: 10 seconds on 2 CPU cores

Expect: test accuracy above 90 % with both methods, dense momentum SGD ahead. It is too
short for a comparison.
"""

from experiments.training.config import Config

config = Config(methods=("dmsgd", "gmc"), epochs=4, evaluations=4)
