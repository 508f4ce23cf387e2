"""What training does for Geneformers: counts become lists of genes, and medians come with them or from the corpus."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bulkformer_tl._optional import require
from bulkformer_tl._rank_vocabulary import CONTEXT, MASK, SPECIALS_OF, RankVocabulary
from bulkformer_tl._turned import turned
from bulkformer_tl.encodings import RankTable, find_count_fault, rank_genes
from bulkformer_tl.encodings._ranks import TARGET_SUM
from bulkformer_tl.models import Geneformer
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._masks import draw_weights
from bulkformer_tl.train._rank_network import RankNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch
    from bulkformer_tl.train._config import PretrainConfig
    from bulkformer_tl.train._corpus import Corpus
    from bulkformer_tl.train._objectives import Objective

#: Sizes of the first published network (Theodoris et al. 2023), and which specials lists have.
SIZES: dict[str, Any] = {
    "version": "V1",
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": None,
    "max_position_embeddings": None,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.02,
    "attention_probs_dropout_prob": 0.02,
}


@dataclass(frozen=True, eq=False)
class Frequencies:
    """How often genes stand in lists.

    Parameters
    ----------
    dictionary
        Genes that can be ranked, with their tokens and medians.
    log_probability
        Of each gene of the corpus' vocabulary among the tokens of the training samples, each counted once more than it
        occurs; (G,), natural logarithm.
    """

    dictionary: RankVocabulary
    log_probability: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RankReader:
    """Turns rows of counts into the rank of each gene.

    Parameters
    ----------
    match
        Where the genes stand among the columns.
    table
        What ranking needs to know of them; their numbers stand for tokens.
    length
        Most genes of a sample.
    """

    match: GeneMatch
    table: RankTable
    length: int

    def __call__(self, block: NDArray[np.floating]) -> NDArray[np.float32]:
        """Rank rows, (N, n_vars), to (N, G), float32, from 0; ``NaN`` where a gene has no token."""
        counts = np.nan_to_num(self.match.align(block), nan=0.0)
        columns, found = np.arange(counts.shape[1]), np.full(counts.shape, np.nan, dtype=np.float32)
        for row, own in zip(found, counts, strict=True):
            total = float(own.sum(dtype=np.float64)) or 1.0
            genes, _ = rank_genes(own, columns, self.table, total=total, length=self.length)
            row[genes] = np.arange(len(genes))
        return found


def make_network(config: PretrainConfig, objective: Objective, corpus: Corpus, start: Geneformer | None) -> RankNetwork:
    """Make the network: weights of ``start``, or drawn from the seed.

    Raises
    ------
    ImportError
        If transformers is not installed.
    ValueError
        If sizes are unknown or impossible, or ``start`` cannot be trained.
    """
    require("transformers", extra="geneformer", purpose="training a Geneformer")
    from transformers import BertConfig, BertForMaskedLM

    if start is not None:
        quantized = start.provenance.get("quantize")
        refuse_unless(not quantized, f"{start.name} was loaded in {quantized}; load it without quantize= to train it")
        refuse_unless(MASK in start.dictionary.specials, f"the tokens of {start.name} hold no {MASK} to train with")
        tokens = torch.from_numpy(start.dictionary.tokens)
        return RankNetwork(copy.deepcopy(start.network).train(), tokens, start.dictionary.specials)
    unknown = sorted(set(config.network) - set(SIZES))
    refuse_unless(not unknown, f"the configuration has the unknown fields {unknown}; a 'geneformer' has {list(SIZES)}")
    sizes = SIZES | dict(config.network)
    version, width, heads = sizes.pop("version"), sizes["hidden_size"], sizes["num_attention_heads"]
    refuse_unless(version in SPECIALS_OF, f"version must be one of {list(SPECIALS_OF)}, found {version!r}")
    refuse_unless(width % heads == 0, f"hidden_size={width} is not a multiple of num_attention_heads={heads}")
    layers = sizes["num_hidden_layers"]
    refuse_unless(
        layers > 1, f"num_hidden_layers={layers}: vectors come from the layer before the last, so that 2 are needed"
    )
    sizes["intermediate_size"] = sizes["intermediate_size"] or 2 * width
    sizes["max_position_embeddings"] = sizes["max_position_embeddings"] or CONTEXT[version]
    specials = {name: number for number, name in enumerate(SPECIALS_OF[version])}
    tokens = len(specials) + torch.arange(len(corpus.vocabulary))
    with draw_weights(config.seed):
        made = BertConfig(vocab_size=len(specials) + len(tokens), attn_implementation="sdpa", **sizes)
        return RankNetwork(BertForMaskedLM(made), tokens, specials)


def scan(
    corpus: Corpus, training: NDArray[np.bool_], config: PretrainConfig, network: RankNetwork, start: Geneformer | None
) -> Frequencies:
    """Check every value, take medians from the training samples if there are none, and let the corpus read ranks.

    Parameters
    ----------
    corpus
        Its sources hold counts; afterwards it reads ranks.
    training
        Which samples are trained on, shape (N,).
    config
        Of the run.
    network
        Says how long lists are.
    start
        Model that training starts from, whose medians stay.

    Raises
    ------
    ValueError
        If a source does not hold counts, or a sample none of a gene that can be ranked; or most genes have no median.
    OSError
        If there is no room for the temporary file from which medians are taken.
    """
    medians = corpus.vocabulary.medians
    if medians is None:
        medians = _medians(corpus, training)
    else:
        for _ in _scaled(corpus, training):
            pass
    if start is None:
        names = corpus.vocabulary.ids.tolist()
        numbered = network.specials | dict(zip(names, network.tokens.tolist(), strict=True))
        known = dict(zip(names, medians.tolist(), strict=True))
        dictionary = RankVocabulary.of(known, numbered, corpus.vocabulary.renamed)
    else:
        dictionary = start.dictionary
    table = RankTable(np.where(np.isnan(medians), np.inf, medians), np.arange(len(medians)))
    for samples in corpus.sources:
        samples.reader = RankReader(samples.match, table, network.length)
        # a gene without counts has no token, measured or not
        samples.zeros = np.zeros_like(samples.zeros)
    counts = np.ones(len(medians))
    for samples, rows, places in corpus.blocks("count genes"):
        read = ~np.isnan(samples.read(rows.start, rows.stop))
        empty = np.flatnonzero(~read.any(axis=1))
        if len(empty):
            message = (
                f"{samples.where}: row {rows.start + empty[0]} holds no count of any gene that can be ranked; drop "
                "such samples"
            )
            raise ValueError(message)
        counts += read[training[places]].sum(axis=0)
    return Frequencies(dictionary, np.log(counts / counts.sum()).astype(np.float32))


def centre(network: RankNetwork, frequencies: Frequencies) -> None:
    """Let an untrained head start from how often genes occur."""
    bias = torch.full((int(network.bert.config.vocab_size),), float(frequencies.log_probability.min()))
    bias[network.tokens.cpu()] = torch.from_numpy(frequencies.log_probability)
    with torch.no_grad():
        network.bert.cls.predictions.bias.copy_(bias)
        # one and the same in some versions of transformers
        network.bert.cls.predictions.decoder.bias.copy_(bias)


def make_model(
    network: RankNetwork,
    corpus: Corpus,
    frequencies: Frequencies,
    *,
    config: PretrainConfig,
    name: str,
    provenance: dict[str, Any],
) -> Geneformer:
    """Put a trained network and its genes, tokens and medians together."""
    return Geneformer(network.bert, frequencies.dictionary, name=name, provenance=provenance)


def _scaled(corpus: Corpus, training: NDArray[np.bool_]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Check every value, and yield places of training samples among these, and their counts per 10,000, (n, G)."""
    place = np.cumsum(training) - 1
    for samples, rows, places in corpus.blocks("check the corpus"):
        block = samples.stored(rows.start, rows.stop)
        fault = find_count_fault(block)
        if fault is not None:
            hint = "; bf.train.Source(data, layer=...) names the layer to read"
            message = f"{samples.where}: row {rows.start + fault[0]} {fault[1]}{hint}"
            raise ValueError(message)
        own = block[training[places]].astype(np.float64)
        if len(own):
            libraries = np.nansum(own, axis=1, keepdims=True)
            first = int(place[places][training[places]][0])
            aligned = samples.match.align(own) / np.where(libraries > 0, libraries, np.nan) * TARGET_SUM
            yield slice(first, first + len(own)), aligned


def _medians(corpus: Corpus, training: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median of each gene's counts above zero, samples scaled to 10,000, (G,); ``NaN`` where none is."""
    n_genes = len(corpus.vocabulary)
    found = np.full(n_genes, np.nan)
    with turned(_scaled(corpus, training), n_genes=n_genes, n_samples=int(training.sum())) as values:
        for gene, row in enumerate(values):
            detected = row[row > 0]
            if len(detected):
                found[gene] = np.median(detected)
    return found
