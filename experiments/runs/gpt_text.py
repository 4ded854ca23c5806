"""x"""

from experiments.models.gpt import Gpt
from experiments.training.config import Config

config = Config(
    data="text",
    model="gpt",
    gpt=Gpt(blocks=4, width=256, heads=4),
    methods=("adamw", "adamw_diloco"),
    compressor="top_k",
    ratio=0.01,
    partition="iid",
    workers=4,
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
