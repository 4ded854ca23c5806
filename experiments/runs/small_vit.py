"""Non-IID CIFAR-10 for a CPU: a small transformer and the GMC paper's five methods.

Scaled down from the paper's Table 2: ten epochs in place of 200, one seed, a network of
0.3 million parameters, and 1 % of the entries (0.1 %: `small_vit_sparse`). Dense
momentum SGD for comparison.

Command: python -m experiments run small_vit

Time: 90 minutes on 2 CPU cores that were busy with other work too

Expect: dense 58.6 % of test accuracy, DGC 57.2 %, GMC 56.5 %, DEF-A 49.2 %, DGC with
masking 48.1 %, CSER 46.6 %; RCC 8.4 to 8.6 %, CSER 6.9 %.
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
