"""Table 2 of the GMC paper: ViT on CIFAR-10, non-IID workers.

Five methods send 0.1 % of the entries, with three seeds. Figures 3 to 6 have their
curves. `experiments/paper/settings.py` lists the settings that are reconstructed.

Command: python -m experiments run table2_cifar10_vit

Time: not yet run; it is meant for an accelerator

Expect: in the paper 73.3 % with GMC, 72.3 % with DEF-A and 60.2 % with masked DGC.
"""

from experiments.paper.settings import setting

config = setting("cifar10", "vit", "dirichlet")
