"""Table 2 of the GMC paper: ResNet-20 on CIFAR-100, few labels a worker.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table2_cifar100_resnet20

Time: not yet run; for an accelerator

Expect: in the paper GMC 58.6 %, DGC 52.8 % and DGC with masking 50.0 %.
"""

from experiments.paper.settings import setting

config = setting("cifar100", "resnet20", "dirichlet")
