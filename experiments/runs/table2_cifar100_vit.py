"""Table 2 of the GMC paper: ViT on CIFAR-100, few labels a worker.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table2_cifar100_vit

Time: not yet run; for an accelerator

Expect: in the paper GMC 57.8 %, DGC 55.0 % and DGC with masking 53.3 %.
"""

from experiments.paper.settings import setting

config = setting("cifar100", "vit", "dirichlet")
