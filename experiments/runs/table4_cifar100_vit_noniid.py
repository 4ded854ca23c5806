"""Table 4 of the GMC paper: ViT on CIFAR-100, random blocks, few labels a worker.

DEF-A (lambda 0.3) and GMC+ (0.5) send blocks of 1/64 of the entries, three seeds; their
curves are in Figures 3 to 6. What of the setting is reconstructed:
`experiments/paper/settings.py`.

Command: python -m experiments run table4_cifar100_vit_noniid

Time: not yet run; for an accelerator

Expect: in the paper DEF-A 46.09 % and GMC+ 50.07 %.
"""

from experiments.paper.settings import blocks

config = blocks("cifar100", "vit", "dirichlet")
