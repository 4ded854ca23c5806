"""Signum with majority vote beside Adam, and other ways with signs, on digits.

All with a rate of their own, which falls to zero along a cosine; workers are alike.
Signs are sent in one bit, gradients in 32.

Command: python -m experiments run signum_digits

Time: 80 seconds on 1 CPU core, shared with other work

Expect: Signum 98.65 % of test accuracy and Adam 98.58 %, give or take 0.4, with 28
times fewer bytes; signSGD without momentum 97.9 %, EF-signSGD 98.8 %.
"""

from experiments.training.config import Config

config = Config(
    methods=("dmsgd", "adam", "signum", "sign_sgd", "ef_sign_sgd"),
    partition="iid",
    epochs=30,
    evaluations=10,
    learning_rates=(
        ("adam", 0.003),
        ("signum", 0.001),
        ("sign_sgd", 0.001),
        ("ef_sign_sgd", 0.5),
    ),
    seeds=3,
)
