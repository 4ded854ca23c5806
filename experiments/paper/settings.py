"""The settings of the GMC paper's experiments, which its named runs are made of.

Printed in the paper: 8 workers, a total batch of 128, 200 epochs, weight decay 1e-4, no
warm-up of the sparsity, batch norm where workers are alike and group norm where they
are not, and Dirichlet(0.1) over the labels for those. Reconstructed, since no copy with
its formulas was at hand: momentum 0.9, the rate of 0.1 that falls epoch by epoch along
a cosine, 0.1 % of the entries by a sampled threshold, random blocks of 1/64, and how
CSER spends its budget; also that group norm has 8 groups, that one selection is made
for the whole network, how Dirichlet shares are filled up to equal sizes
(`partitions.dirichlet`), and that DEF-A is judged at x - mean of e (`def_sgd` is the
same training judged at x). The images are augmented as is usual: padded by 4, cropped,
mirrored.
"""

import dataclasses
from typing import Literal

from experiments.training.config import Config
from experiments.training.methods import DETACHMENTS

TOP_S = ("dgc", "dgc_unmasked", "cser", "def_a", "gmc")
ALTERNATIVES = ("gmc_server_momentum", "gmc_rate_inside", "gmc")
EVERY_DETACHMENT = tuple(
    f"{method}_{detach}" for method in ("def_a", "gmc_plus") for detach in DETACHMENTS
)


def setting(
    data: Literal["cifar10", "cifar100"],
    model: Literal["resnet20", "vit"],
    partition: Literal["iid", "dirichlet"],
    methods: tuple[str, ...] = TOP_S,
) -> Config:
    """A comparison that sends what a sampled threshold selects (Tables 1 and 2)."""
    norm = "bn" if partition == "iid" else "gn"
    return Config(
        data=data,
        model=f"resnet20_{norm}" if model == "resnet20" else model,
        methods=methods,
        compressor="sampled_top_k",
        ratio=0.001,
        partition=partition,
        batch_size=16,
        epochs=200,
        evaluations=200,
        learning_rate=0.1,
        learning_rates=(),
        schedule="cosine_by_epoch",
        weight_decay=1e-4,
        seeds=3,
    )


def blocks(
    data: Literal["cifar10", "cifar100"],
    model: Literal["resnet20", "vit"],
    partition: Literal["iid", "dirichlet"],
    methods: tuple[str, ...] = ("def_a_0.3", "gmc_plus_0.5"),
) -> Config:
    """A comparison that sends random blocks (Tables 3 and 4)."""
    return dataclasses.replace(
        setting(data, model, partition, methods),
        compressor="random_block",
        ratio=1 / 64,
    )
