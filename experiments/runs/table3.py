"""Table 3 of the GMC paper: random blocks, five values of lambda.

DEF-A and GMC+ train ResNet-20 on CIFAR-100; workers are IID. The runs with lambda 0.3
and 0.5 are a line of Table 4 too. `experiments/paper/settings.py` lists the settings
that are reconstructed.

Command: python -m experiments run table3

Time: not yet run; it is meant for an accelerator

Expect: in the paper both nearly fail with lambda 0; DEF-A is best at 0.3 with 66.4 %,
GMC+ at 0.5 with 67.9 %.
"""

from experiments.paper.settings import EVERY_DETACHMENT, blocks

config = blocks("cifar100", "resnet20", "iid", methods=EVERY_DETACHMENT)
