"""What training does for BulkFormers: the network that it starts from, and the model that it ends with."""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bulkformer_tl.models import BulkFormer
from bulkformer_tl.models._families import PUBLISHED, family_classes, make_config
from bulkformer_tl.models._files import read_tensors, require_file
from bulkformer_tl.models._graph import check_graph
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._masks import draw_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from bulkformer_tl.models._layers import Encoder
    from bulkformer_tl.train._config import PretrainConfig
    from bulkformer_tl.train._corpus import Corpus, Moments
    from bulkformer_tl.train._objectives import Objective

logger = logging.getLogger(__name__)


def as_graph(graph: tuple[Any, Any] | str | Path, family: str, n_genes: int) -> tuple[Tensor, Tensor]:
    """Return edges (2, E), in the family's own order of rows, and weights (E,) as tensors, checked.

    Parameters
    ----------
    graph
        Edges, receivers first, and weights; or a safetensors file with both.
    family
        Of the network.
    n_genes
        Genes G of the network.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else, or the graph is not one of G genes.
    """
    if isinstance(graph, str | Path):
        path = require_file(graph, "the gene graph", "bf.pp.graph_edges, or the command `bulkformer graph`")
        stored = read_tensors(path)
        names = ("edge_index", "edge_weight")
        refuse_unless(
            isinstance(stored, dict) and set(names) <= set(stored),
            f"{path} should hold the tensors edge_index and edge_weight, as `bulkformer graph` writes them",
        )
        graph = (stored[names[0]], stored[names[1]])
    edges, weights = (torch.as_tensor(np.asarray(part)) for part in graph)
    check_graph(edges, weights, n_genes)
    _, network_class = family_classes(family)
    return edges if network_class.receiver_row == 0 else edges.flip(0), weights.float()


def graph_checksum(graph: tuple[Tensor, Tensor]) -> str:
    """SHA-256 of a graph's edges and weights."""
    digest = hashlib.sha256()
    for part in graph:
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_network(config: PretrainConfig, objective: Objective, corpus: Corpus, start: BulkFormer | None) -> Encoder:
    """Make the network: weights of ``start``, or drawn from the seed.

    Raises
    ------
    ValueError
        If sizes are unknown or missing.
    """
    sizes = dict(config.network) if start is None else asdict(start.config)
    network_config = make_config(config.family, {**sizes, "n_genes": len(corpus.vocabulary), **objective.network})
    heads = getattr(network_config, "heads", 1)
    refuse_unless(
        config.family != "g2" or network_config.dim % heads == 0,
        f"dim={network_config.dim} is not a multiple of heads={heads}",
    )
    _, network_class = family_classes(config.family)
    with draw_weights(config.seed):
        network = network_class(network_config)
    if start is not None:
        # a head that the start does not have begins anew
        network.load_state_dict({**network.state_dict(), **start.network.state_dict()})
    return network


def scan(
    corpus: Corpus, training: NDArray[np.bool_], config: PretrainConfig, network: Encoder, start: BulkFormer | None
) -> Moments:
    """Check every value and return the moments of the training samples; see :meth:`Corpus.scan`."""
    return corpus.scan(training)


def centre(network: Any, moments: Moments) -> None:
    """Let an untrained head start from the mean of the corpus; a ReLU that starts below 0 would not learn."""
    head = getattr(network, "head", None) or network.expression_head
    last = [layer for layer in head if isinstance(layer, nn.Linear)][-1]
    nn.init.constant_(last.bias, float(moments.mean.mean()))


def make_model(
    network: Encoder,
    corpus: Corpus,
    moments: Moments,
    *,
    config: PretrainConfig,
    graph: tuple[Tensor, Tensor],
    name: str,
    provenance: dict[str, Any],
) -> BulkFormer:
    """Put a trained network, its genes and what is known of its training together."""
    published = PUBLISHED[config.family]
    return BulkFormer(
        network,
        replace(corpus.vocabulary, name=name, means=moments.mean.astype(np.float64)),
        graph=graph,
        name=name,
        family=config.family,
        denominator=_denominator(corpus, published["denominator"]),
        default_pooling=published["default_pooling"],
        pooling_observed_only=published.get("pooling_observed_only", False),
        trained_missing=config.masking.extremes,
        provenance=provenance,
    )


def _denominator(corpus: Corpus, published: Any) -> Any:
    found = corpus.denominators
    if len(found) > 1:
        message = (
            f"the sources were made with denominators {sorted(found)}, so that their TPM are not comparable; call "
            f"bf.pp.log_tpm(adata, denominator={published!r}) on all of them"
        )
        warnings.warn(message, UserWarning, stacklevel=2)
    return found.pop() if len(found) == 1 else published
