"""The main job: six methods on handwritten digits, workers that see few labels.

Eight workers with equal shares, split by label with Dirichlet(0.1), train a perceptron
for 60 epochs. All methods but dense momentum SGD send 1 % of the entries, 50 times
fewer bytes.

Command: python -m experiments

Time: 1 minute on 2 CPU cores

Expect: all six between 97.5 % and 99.5 % of test accuracy, in another order for every
seed: 517 images do not tell them apart. Training loss 0.001 with GMC, 0.002 to 0.003
with the others and 0.01 with masked DGC. RCC near 8 %.
"""

from experiments.training.config import Config

config = Config()
