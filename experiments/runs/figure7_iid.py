"""Figure 7 of the GMC paper: GMC and its two alternatives, IID workers.

The alternatives are momentum on the server (Algorithm 3) and the learning rate inside
the residual (Algorithm 4). They train ResNet-20 on CIFAR-10. The figure's ratio and
learning rate are not known; those of Tables 1 and 2 are used.

Command: python -m experiments run figure7_iid

Time: not yet run; it is meant for an accelerator

Expect: in the paper GMC is ahead of both, most clearly with non-IID workers.
"""

from experiments.paper.settings import ALTERNATIVES, setting

config = setting("cifar10", "resnet20", "iid", methods=ALTERNATIVES)
