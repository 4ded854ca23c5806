"""The settings of the GMC paper's experiments, from which its named runs are made.

The paper prints: 8 workers, a total batch of 128, 200 epochs, weight decay 1e-4, no
warm-up of the sparsity, batch norm for IID workers, group norm for non-IID workers, and
Dirichlet(0.1) over the labels for the latter.

The rest is reconstructed, since no copy with the formulas was available:

* momentum 0.9, and a learning rate of 0.1 that falls epoch by epoch along a cosine;
* 0.1 % of the entries, selected by a sampled threshold from the whole network at once;
* random blocks of 1/64 of the entries;
* how CSER divides its bytes between steps and resets (`training.compression`);
* group norm with 8 groups;
* how Dirichlet shares are filled up to equal sizes (`data.partitions.dirichlet`);
* evaluation of DEF-A at x - mean(e); `def_sgd` is the same training evaluated at x;
* the usual augmentation: pad by 4, crop, mirror.
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
    """Tables 1 and 2: messages hold what a sampled threshold selects."""
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
    """Tables 3 and 4: messages hold random blocks."""
    return dataclasses.replace(
        setting(data, model, partition, methods),
        compressor="random_block",
        ratio=1 / 64,
    )
