"""Table 2 of the GMC paper: ResNet-20 on CIFAR-10, non-IID workers.

Five methods send 0.1 % of the entries, with three seeds. Figures 3 to 6 have their
curves. `experiments/paper/settings.py` lists the settings that are reconstructed.

Command: python -m experiments run table2_cifar10_resnet20

Time: not yet run; it is meant for an accelerator

Expect: in the paper 86.5 % with GMC, 82.2 % with DEF-A and 67.1 % with masked DGC.
"""

from experiments.paper.settings import setting

config = setting("cifar10", "resnet20", "dirichlet")
