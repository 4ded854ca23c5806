"""The GMC paper's Figure 7 for a CPU: GMC and its alternatives, few labels a worker.

The setting of `small_vit` for five epochs. With `--partition iid`, workers are alike.

Command: python -m experiments run small_figure7

Time: not yet run; by `small_vit`, half an hour on 2 CPU cores

Expect: in the paper GMC is ahead of both, most of all with few labels a worker.
"""

import dataclasses

from experiments.paper import ALTERNATIVES
from experiments.runs.small_vit import config as small_vit

config = dataclasses.replace(small_vit, methods=ALTERNATIVES, epochs=5, evaluations=10)
