"""Table 1 of the GMC paper: ViT on CIFAR-10, workers that are alike.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table1_cifar10_vit

Time: not yet run; for an accelerator

Expect: in the paper GMC 83.5 % and DGC with masking 83.7 %.
"""

from experiments.paper.settings import setting

config = setting("cifar10", "vit", "iid")
