"""The GMC paper's Figure 7 for a CPU: GMC and its alternatives, few labels a worker.

The setting of `small_vit` for five epochs. With `--partition iid`, workers are alike.

Command: python -m experiments run small_figure7

Time: 25 minutes on 1 CPU core, shared with other work

Expect: server momentum 52.4 %, rate in the residual 51.2 %, GMC 50.4 %; with
`--partition iid` 49.5 %, 53.1 % and 52.5 %. In the paper GMC is ahead of both, most of
all with few labels a worker.
"""

import dataclasses

from experiments.paper.settings import ALTERNATIVES
from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(small_vit, methods=ALTERNATIVES, epochs=5, evaluations=10)
