"""The network that BioFormers' authors published in code, from files of its users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkformer_tl._modalities import EXPRESSION
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._binning import Binning
from bulkformer_tl.models._bioformer_bert import read_published
from bulkformer_tl.models._bioformer_model import BioFormer
from bulkformer_tl.models._files import read_tensors, require_file, sha256
from bulkformer_tl.models._state import build, clean_state

if TYPE_CHECKING:
    from pathlib import Path

    import torch

#: How the published code bins counts of single cells.
PUBLISHED_BINNING = Binning(bin_size=0.3333333, form="published", target_sum=1500.0)
_SOURCE = "training with github.com/BiostateAI/Bioformers-BERT, which publishes no weights"


def load_bioformers(
    weights: str | Path,
    *,
    genes: str | Path | GeneVocabulary,
    heads: int = 12,
    binning: Binning = PUBLISHED_BINNING,
    device: str | torch.device | None = None,
) -> BioFormer:
    """Load weights of the network that BioFormers' authors published in code: BERT over joint tokens of gene and bin.

    It differs from the paper, which :class:`BioFormer` is built after: no ``<cls>``, no external tokens, one table for
    pairs of gene and bin, 12 layers of 12 heads instead of 8 of 8. The authors publish no weights.

    Parameters
    ----------
    weights
        State of their module, ``.pt`` or ``.safetensors``, read as plain tensors.
    genes
        Genes in the order of training: a vocabulary, or a CSV that holds them.
    heads
        Attention heads, which no tensor tells; 12 in their settings.
    binning
        How counts are binned; their settings by default.
    device
        Torch device; ``None`` takes :attr:`bulkformer_tl.settings.device`.

    Returns
    -------
    The model; :func:`convert` writes it as a bundle.

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If a file is damaged or holds another network, or its tables do not fit the genes.
    """
    path = require_file(weights, "the weights", _SOURCE)
    if not isinstance(genes, GeneVocabulary):
        genes = GeneVocabulary.from_csv(require_file(genes, "the genes file", "the data that it was trained on"))
    state = clean_state(read_tensors(path), path)
    config, own = read_published(state, len(genes), heads, path)
    model = BioFormer(
        build("bioformer-bert", config, own, path),
        genes,
        name=path.stem,
        family="bioformer-bert",
        binnings={EXPRESSION: binning},
        trained_missing=(0.1, 0.1),
        checksum=sha256(path),
        provenance={
            "source": "weights of the network that its authors published in code",
            "verified": ["all tensors load strictly", "the embedding table fits the number of genes"],
            "unverified": [f"{heads} attention heads: no tensor tells", "how counts were binned"],
        },
    )
    return model.to(device)
