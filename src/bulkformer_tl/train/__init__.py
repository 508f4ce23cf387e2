"""Training: on your own corpus, and of an encoder to your own labels. Needs the extras ``train`` and ``finetune``."""

from __future__ import annotations

from bulkformer_tl.train._adapter import Adapter
from bulkformer_tl.train._config import Optimizer, PretrainConfig
from bulkformer_tl.train._finetune import finetune
from bulkformer_tl.train._finetune_config import FinetuneConfig
from bulkformer_tl.train._masks import Masking
from bulkformer_tl.train._pretrain import pretrain
from bulkformer_tl.train._sources import Source
from bulkformer_tl.train._targets import Target

__all__ = [
    "Adapter",
    "FinetuneConfig",
    "Masking",
    "Optimizer",
    "PretrainConfig",
    "Source",
    "Target",
    "finetune",
    "pretrain",
]
