"""Table 1 of the GMC paper: ResNet-20 on CIFAR-10, workers that are alike.

Five methods that send 0.1 % of the entries, three seeds; their curves are in Figures 3
to 6. What of the setting is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table1_cifar10_resnet20

Time: not yet run; for an accelerator

Expect: in the paper GMC 92.3 % and DGC with masking 92.4 %.
"""

from experiments.paper.settings import setting

config = setting("cifar10", "resnet20", "iid")
