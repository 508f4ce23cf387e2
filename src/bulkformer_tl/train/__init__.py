"""Training on your own corpus: what is hidden, what it costs, how it runs. Needs the extra ``train``."""

from __future__ import annotations

from bulkformer_tl.train._config import Optimizer, PretrainConfig
from bulkformer_tl.train._masks import Masking
from bulkformer_tl.train._pretrain import pretrain
from bulkformer_tl.train._sources import Source

__all__ = ["Masking", "Optimizer", "PretrainConfig", "Source", "pretrain"]
