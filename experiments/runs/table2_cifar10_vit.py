"""Table 2 of the GMC paper: ViT on CIFAR-10, few labels a worker.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table2_cifar10_vit

Time: not yet run; for an accelerator

Expect: in the paper GMC 73.3 %, DEF-A 72.3 % and DGC with masking 60.2 %.
"""

from experiments.paper.settings import setting

config = setting("cifar10", "vit", "dirichlet")
