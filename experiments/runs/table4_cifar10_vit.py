"""Table 4 of the GMC paper: ViT on CIFAR-10, random blocks.

DEF-A (lambda 0.3) and GMC+ (0.5) send blocks of 1/64 of the entries, three seeds; their
curves are in Figures 3 to 6. What of the setting is reconstructed:
`experiments/paper/settings.py`.

Command: python -m experiments run table4_cifar10_vit

Time: not yet run; for an accelerator

Expect: in the paper DEF-A 74.21 % and GMC+ 75.78 %.
"""

from experiments.paper.settings import blocks

config = blocks("cifar10", "vit", "iid")
