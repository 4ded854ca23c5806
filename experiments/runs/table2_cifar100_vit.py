"""Table 2 of the GMC paper: ViT on CIFAR-100, non-IID workers.

Five methods send 0.1 % of the entries, with three seeds. Figures 3 to 6 have their
curves. `experiments/paper/settings.py` lists the settings that are reconstructed.

Command: python -m experiments run table2_cifar100_vit

Time: not yet run; it is meant for an accelerator

Expect: in the paper 57.8 % with GMC, 55.0 % with DGC and 53.3 % with masked DGC.
"""

from experiments.paper.settings import setting

config = setting("cifar100", "vit", "dirichlet")
