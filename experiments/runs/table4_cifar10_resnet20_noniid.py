"""Table 4 of the GMC paper: ResNet-20 on CIFAR-10, random blocks, non-IID workers.

DEF-A (lambda 0.3) and GMC+ (lambda 0.5) send blocks of 1/64 of the entries, with three
seeds. Figures 3 to 6 have their curves. `experiments/paper/settings.py` lists the
settings that are reconstructed.

Command: python -m experiments run table4_cifar10_resnet20_noniid

Time: not yet run; it is meant for an accelerator

Expect: in the paper 78.17 % with DEF-A and 79.25 % with GMC+.
"""

from experiments.paper.settings import blocks

config = blocks("cifar10", "resnet20", "dirichlet")
