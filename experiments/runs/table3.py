"""Table 3 of the GMC paper: random blocks, by how far the gradient is detached.

DEF-A and GMC+ with five values of lambda, ResNet-20 on CIFAR-100, workers that are
alike. Its runs with lambda 0.3 and 0.5 are a line of Table 4 too. What of the setting
is reconstructed: `experiments/paper/settings.py`.

Command: python -m experiments run table3

Time: not yet run; for an accelerator

Expect: in the paper both nearly fail with lambda 0; DEF-A is best at 0.3 with 66.4 %,
GMC+ at 0.5 with 67.9 %.
"""

from experiments.paper.settings import EVERY_DETACHMENT, blocks

config = blocks("cifar100", "resnet20", "iid", methods=EVERY_DETACHMENT)
