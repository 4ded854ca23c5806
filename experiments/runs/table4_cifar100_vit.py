"""Table 4 of the GMC paper: ViT on CIFAR-100, random blocks.

DEF-A (lambda 0.3) and GMC+ (lambda 0.5) send blocks of 1/64 of the entries, with three
seeds. Figures 3 to 6 have their curves. `experiments/paper/settings.py` lists the
settings that are reconstructed.

Command: python -m experiments run table4_cifar100_vit

Time: not yet run; it is meant for an accelerator

Expect: in the paper 50.85 % with DEF-A and 55.5 % with GMC+.
"""

from experiments.paper.settings import blocks

config = blocks("cifar100", "vit", "iid")
