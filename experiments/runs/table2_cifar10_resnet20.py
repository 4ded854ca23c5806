"""Table 2 of the GMC paper: ResNet-20 on CIFAR-10, few labels a worker.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table2_cifar10_resnet20

Time: not yet run; for an accelerator

Expect: in the paper GMC 86.5 %, DEF-A 82.2 % and DGC with masking 67.1 %.
"""

from experiments.paper.settings import setting

config = setting("cifar10", "resnet20", "dirichlet")
