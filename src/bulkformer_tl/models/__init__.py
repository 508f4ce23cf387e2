"""The encoders: published networks, their files and what they say about samples. Tensors only, no AnnData."""

from __future__ import annotations

from bulkformer_tl.models._attention import Attention
from bulkformer_tl.models._binning import Binning
from bulkformer_tl.models._bioformer_files import load_bioformers
from bulkformer_tl.models._bioformer_model import BioFormer
from bulkformer_tl.models._bulkformer import BulkFormer
from bulkformer_tl.models._bundle import convert
from bulkformer_tl.models._encoder import Encoded, Encoder
from bulkformer_tl.models._engine_options import EngineOptions
from bulkformer_tl.models._geneformer import Geneformer
from bulkformer_tl.models._geneformer_files import load_geneformer
from bulkformer_tl.models._load import load
from bulkformer_tl.models._state_vectors import state_vectors
from bulkformer_tl.registry import available, download

__all__ = [
    "Attention",
    "Binning",
    "BioFormer",
    "BulkFormer",
    "Encoded",
    "Encoder",
    "EngineOptions",
    "Geneformer",
    "available",
    "convert",
    "download",
    "load",
    "load_bioformers",
    "load_geneformer",
    "state_vectors",
]
