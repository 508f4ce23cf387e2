"""What training does for BioFormers: counts become bins, and nothing but the samples relates one gene to another."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bulkformer_tl._modalities import modalities_of, modality_of
from bulkformer_tl.encodings import find_count_fault
from bulkformer_tl.models import BioFormer
from bulkformer_tl.models._binning import BinReader, as_binnings
from bulkformer_tl.models._families import family_classes, make_config
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._masks import draw_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.models._binning import Binning
    from bulkformer_tl.train._config import PretrainConfig
    from bulkformer_tl.train._corpus import Corpus
    from bulkformer_tl.train._objectives import Objective


@dataclass(frozen=True)
class Marginals:
    """How often each bin occurs in each feature.

    Parameters
    ----------
    log_probability
        Of each bin among the training samples that measure the feature, beside one more sample whose bins occur as
        they do over all features; (G, B), natural logarithm.
    overall
        The same over all features, (B,).
    binnings
        How each modality is binned, with the library size that was found.
    categories
        What the codes of each external token stand for.
    """

    log_probability: NDArray[np.float32]
    overall: NDArray[np.float32]
    binnings: dict[str, Binning]
    categories: dict[str, tuple[str, ...]]


def make_network(config: PretrainConfig, objective: Objective, corpus: Corpus, start: BioFormer | None) -> Any:
    """Make the network: weights of ``start``, or drawn from the seed; and give the corpus its external tokens.

    Raises
    ------
    ValueError
        If sizes are unknown or impossible, or a binning is.
    """
    names = corpus.vocabulary.ids
    if start is not None:
        sizes = asdict(start.config)
    else:
        as_binnings(config.binning, modalities_of(names))
        sizes = {
            **config.network,
            "n_genes": len(names),
            "n_modalities": len(modalities_of(names)),
            "external": tuple(len(found) for found in _categories(corpus).values()),
        }
    network_config = make_config(config.family, sizes | objective.network)
    _, network_class = family_classes(config.family)
    with draw_weights(config.seed):
        network: Any = network_class(network_config)
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    return network


def scan(
    corpus: Corpus, training: NDArray[np.bool_], config: PretrainConfig, network: Any, start: BioFormer | None
) -> Marginals:
    """Check every value, let the corpus read bins, and count them in the training samples.

    Parameters
    ----------
    corpus
        Its sources hold counts; afterwards it reads bins.
    training
        Which samples are trained on, shape (N,).
    config
        Of the run.
    network
        Says how many bins there are.
    start
        Model that training starts from, whose binning and external tokens stay.

    Raises
    ------
    ValueError
        If a source does not hold counts, or lacks a modality; the message names the call that mends it.
    """
    features = corpus.vocabulary.ids
    known = as_binnings(config.binning, modalities_of(features)) if start is None else start.binnings
    categories = _categories(corpus) if start is None else start.external
    corpus.codes = _codes(corpus, categories)
    binnings = _settle(corpus, training, known)
    for samples in corpus.sources:
        samples.reader = BinReader(
            samples.match, modality_of(samples.var_names), modality_of(features), binnings, network.config.n_bins
        )
    counts = _count(corpus, training, network.config.n_bins)
    overall = (counts.sum(axis=0) + 1) / (counts.sum() + counts.shape[1])
    share = (counts + overall) / (counts.sum(axis=1, keepdims=True) + 1)
    return Marginals(np.log(share).astype(np.float32), np.log(overall).astype(np.float32), binnings, dict(categories))


def centre(network: Any, marginals: Marginals) -> None:
    """Let an untrained head start from how often bins occur."""
    last: nn.Linear = network.head[-1]
    with torch.no_grad():
        last.bias.copy_(torch.from_numpy(marginals.overall))


def make_model(
    network: Any, corpus: Corpus, marginals: Marginals, *, config: PretrainConfig, name: str, provenance: dict[str, Any]
) -> BioFormer:
    """Put a trained network, its features and what is known of its training together."""
    return BioFormer(
        network,
        replace(corpus.vocabulary, name=name),
        name=name,
        family=config.family,
        binnings=marginals.binnings,
        external=marginals.categories,
        trained_missing=config.masking.extremes,
        provenance=provenance,
    )


def _categories(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """Return the values of each column that becomes an external token."""
    found = {name: tuple(str(value) for value in np.unique(column) if value) for name, column in corpus.columns.items()}
    empty = [name for name, values in found.items() if not values]
    refuse_unless(not empty, f"obs[{empty[0]!r}] holds nothing but missing values" if empty else "")
    return {f"obs/{name}": values for name, values in found.items()}


def _codes(corpus: Corpus, categories: Any) -> NDArray[np.int64] | None:
    """Return the codes of external tokens, (N, E), 0 where unknown; ``None`` where there are none."""
    if not categories:
        return None
    columns = [corpus.columns[slot.removeprefix("obs/")] for slot in categories]
    places = [{value: code + 1 for code, value in enumerate(values)} for values in categories.values()]
    return np.array(
        [[place.get(value, 0) for value in column] for column, place in zip(columns, places, strict=True)],
        dtype=np.int64,
    ).T.copy()


def _settle(corpus: Corpus, training: NDArray[np.bool_], binnings: dict[str, Binning]) -> dict[str, Binning]:
    """Check every value, and put the mean library of the training samples where it is asked for (equation 4)."""
    totals, sampled = dict.fromkeys(binnings, 0.0), dict.fromkeys(binnings, 0)
    for samples, rows, places in corpus.blocks("check the corpus"):
        block = samples.stored(rows.start, rows.stop)
        columns = modality_of(samples.var_names)
        for modality, binning in binnings.items():
            own = block[:, columns == modality]
            fault = find_count_fault(own, counts=binning.target_sum is not None)
            if fault is not None:
                hint = "; bf.train.Source(data, layer=...) names the layer to read"
                message = f"{samples.where} ({modality}): row {rows.start + fault[0]} {fault[1]}{hint}"
                raise ValueError(message)
            libraries = np.nansum(own[training[places]], axis=1, dtype=np.float64)
            totals[modality] += float(libraries.sum())
            sampled[modality] += int((libraries > 0).sum())
    settled = {}
    for modality, binning in binnings.items():
        mean = totals[modality] / max(sampled[modality], 1)
        asked = binning.target_sum == "mean"
        refuse_unless(mean > 0 or not asked, f"the training samples hold no counts of the modality {modality!r}")
        settled[modality] = replace(binning, target_sum=mean) if asked else binning
    return settled


def _count(corpus: Corpus, training: NDArray[np.bool_], n_bins: int) -> NDArray[np.float64]:
    """Count the bins of each feature in the training samples, (G, B)."""
    n_genes = len(corpus.vocabulary)
    counts = np.zeros(n_genes * n_bins)
    for samples, rows, places in corpus.blocks("count bins"):
        bins = samples.read(rows.start, rows.stop)[training[places]]
        measured = ~np.isnan(bins)
        entries = np.broadcast_to(np.arange(n_genes) * n_bins, bins.shape)[measured] + bins[measured].astype(np.int64)
        counts += np.bincount(entries, minlength=len(counts))
    return counts.reshape(n_genes, n_bins)
