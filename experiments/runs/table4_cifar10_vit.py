"""Table 4 of the GMC paper: ViT on CIFAR-10, random blocks.

DEF-A (lambda 0.3) and GMC+ (lambda 0.5) send blocks of 1/64 of the entries, with three
seeds. Figures 3 to 6 have their curves. `experiments/paper/settings.py` lists the
settings that are reconstructed.

Command: python -m experiments run table4_cifar10_vit

Time: not yet run; it is meant for an accelerator

Expect: in the paper 74.21 % with DEF-A and 75.78 % with GMC+.
"""

from experiments.paper.settings import blocks

config = blocks("cifar10", "vit", "iid")
