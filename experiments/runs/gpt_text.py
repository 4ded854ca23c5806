"""A transformer on text under AdamW: loss against bytes, steps and seconds.

A decoder of 3.2 million parameters reads windows of 64 characters. Four workers have
iid data. A dense AdamW is compared with methods that send less over a link of 100 mbit
and 20 ms, with 0.2 seconds of computation in a step. Name any text: `--text-file X`.

The size is an option: GPT-2 small is `--blocks 12 --width 768 --heads 12`. So are the
tokens: `--data bytes`, or `--data tokens` with a file of the command `tokens`.

Command: python -m experiments run gpt_text

Time: not yet measured as a whole

Expect: not yet measured
"""

from experiments.models.gpt import Gpt
from experiments.training.config import Config

config = Config(
    data="text",
    model="gpt",
    gpt=Gpt(blocks=4, width=256, heads=4),
    methods=(
        "adamw",
        "adamw_detached",
        "adamw_sparse_loco",
        "muon_muloco",
        "adamw_streaming",
        "adamw_diloco",
        "adamw_one_bit",
        "adamw_power_sgd",
        "adamw_behind",
        "adamw_gmc",
        "gmc",
    ),
    workers=4,
    partition="iid",
    batch_size=4,
    steps=600,
    warmup=30,
    evaluations=30,
    judge_on=200,
    judge_last_on=200,
    learning_rate=2e-3,
    learning_rates=(),
    count=False,
    bandwidth="100mbit",
    latency="20ms",
    step_time="0.2s",
)
