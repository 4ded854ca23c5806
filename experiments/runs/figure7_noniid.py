"""Figure 7 of the GMC paper: GMC and its two alternatives, few labels a worker.

Momentum on the server (Algorithm 3) and the learning rate inside the residual
(Algorithm 4), ResNet-20 on CIFAR-10. Which ratio and rate the figure was made with is
not known; those of Tables 1 and 2 are used.

Command: python -m experiments run figure7_noniid

Time: not yet run; for an accelerator

Expect: in the paper GMC ahead of both, most of all with few labels a worker.
"""

from experiments.paper.settings import ALTERNATIVES, setting

config = setting("cifar10", "resnet20", "dirichlet", methods=ALTERNATIVES)
