"""The GMC paper's Figure 7 for a CPU: GMC and its two alternatives, non-IID workers.

The setting of `small_vit` for five epochs; `--partition iid` makes workers IID.

Command: python -m experiments run small_figure7

Time: 25 minutes on 1 CPU core, shared with other work

Expect: test accuracy 52.4 % with server momentum, 51.2 % with the rate in the residual
and 50.4 % with GMC; with `--partition iid` 49.5 %, 53.1 % and 52.5 %. In the paper GMC
is ahead of both, most clearly with non-IID workers.
"""

import dataclasses

from experiments.paper.settings import ALTERNATIVES
from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(small_vit, methods=ALTERNATIVES, epochs=5, evaluations=10)
