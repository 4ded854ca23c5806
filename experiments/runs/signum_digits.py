"""Signum with majority vote, other sign methods and Adam on handwritten digits.

Each method has its own learning rate, which falls to zero along a cosine. Workers are
IID. A sign takes one bit, an entry of a gradient 32.

Command: python -m experiments run signum_digits

Time: 80 seconds on 1 CPU core, shared with other work

Expect: test accuracy 98.65 % with Signum and 98.58 % with Adam, both within 0.4; Signum
sends 28 times fewer bytes. signSGD, without momentum, 97.9 %; EF-signSGD 98.8 %.
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
