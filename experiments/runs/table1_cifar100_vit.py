"""Table 1 of the GMC paper: ViT on CIFAR-100, workers that are alike.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table1_cifar100_vit

Time: not yet run; for an accelerator

Expect: in the paper GMC and DGC with masking 59.3 %.
"""

from experiments.paper.settings import setting

config = setting("cifar100", "vit", "iid")
