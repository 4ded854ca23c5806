"""Non-IID CIFAR-10 for a CPU: a small transformer and the GMC paper's five methods.

It scales down the paper's Table 2: ten epochs instead of 200, one seed, a network of
0.3 million parameters, and 1 % of the entries (`small_vit_sparse` sends 0.1 %). Dense
momentum SGD is the baseline.

Command: python -m experiments run small_vit

Time: 90 minutes on 2 CPU cores, shared with other work

Expect: test accuracy 58.6 % dense, 57.2 % with DGC, 56.5 % with GMC, 49.2 % with DEF-A,
48.1 % with masked DGC and 46.6 % with CSER; RCC 8.4 to 8.6 %, CSER 6.9 %.
"""

import dataclasses

from experiments.paper.settings import TOP_S, setting

config = dataclasses.replace(
    setting("cifar10", "vit", "dirichlet", methods=("dmsgd", *TOP_S)),
    model="vit_small",
    compressor="top_k",
    ratio=0.01,
    epochs=10,
    evaluations=20,
    learning_rate=0.05,
    judge_on=2_000,
    schedule="cosine",
    seeds=1,
)
