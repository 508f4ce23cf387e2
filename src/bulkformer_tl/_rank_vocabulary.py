"""Genes with tokens and medians, as encodings by rank need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from bulkformer_tl._dictionaries import read_dictionary
from bulkformer_tl._vocabulary import GeneVocabulary, Identifiers, match_genes, to_ensembl

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Genes to medians: published dictionaries, or the vocabulary of a corpus.
Medians = GeneVocabulary | Mapping[str, float] | str | Path
#: Names to tokens, or one identifier to another.
Tokens = Mapping[str, int] | str | Path
Renamed = Mapping[str, str] | str | Path

PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"
SPECIALS = (PAD, MASK, CLS, EOS)

Version = Literal["V1", "V2"]
#: Tokens of a sample at most, specials included, and the specials of each version.
CONTEXT = {"V1": 2048, "V2": 4096}
SPECIALS_OF = {"V1": SPECIALS[:2], "V2": SPECIALS}

#: Least share of the tokens that need a median.
LEAST_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class RankVocabulary:
    """Genes that can be ranked, in the order of their tokens.

    Parameters
    ----------
    ids
        Ensembl ids without version, or whatever the dictionaries hold, shape (G,).
    tokens
        Token of each gene, rising, shape (G,).
    medians
        Median of the gene's counts above zero over a corpus, samples scaled to 10,000; shape (G,).
    specials
        Tokens of ``<pad>``, ``<mask>``, and where there are such ``<cls>`` and ``<eos>``.
    numbered
        The whole dictionary: every name that has a token, genes without a median too.
    renamed
        Retired and other names to identifiers; ``None`` takes names as they are.
    name
        Where it comes from; for messages.
    """

    ids: NDArray[np.str_]
    tokens: NDArray[np.int32]
    medians: NDArray[np.float64]
    specials: Mapping[str, int]
    numbered: Mapping[str, int]
    renamed: Mapping[str, str] | None = None
    name: str = "custom"

    @classmethod
    def of(
        cls,
        medians: Medians,
        tokens: Tokens | None = None,
        renamed: Renamed | None = None,
        *,
        specials: Sequence[str] = SPECIALS,
    ) -> Self:
        """Bring dictionaries together.

        Parameters
        ----------
        medians
            Gene to median, a file of such, or a vocabulary that has medians.
        tokens
            Gene or special to token, or a file of such. ``None`` numbers the specials, then the genes in their order.
        renamed
            Name to identifier, or a file of such.
        specials
            What is numbered before the genes if there are no ``tokens``.

        Raises
        ------
        ValueError
            If tokens are not unique whole numbers from 0, ``<pad>`` has none, medians are not positive, or most tokens
            have none.
        """
        known, name = _medians(medians)
        numbered = _tokens(tokens, [*specials, *known])
        special_tokens = {special: numbered[special] for special in SPECIALS if special in numbered}
        if PAD not in special_tokens:
            message = f"the tokens hold no {PAD}; pass the token dictionary that was published with the model"
            raise ValueError(message)
        genes = sorted((gene for gene in numbered if gene in known), key=lambda gene: numbered[gene])
        n_genes = len(numbered) - len(special_tokens)
        if len(genes) < LEAST_SHARE * n_genes or not genes:
            message = (
                f"only {len(genes):,} of the {n_genes:,} genes that have a token have a median in {name!r}; pass "
                "the medians that were published with these tokens, or take both from bf.pp.build_vocabulary(corpus)"
            )
            raise ValueError(message)
        other = renamed if renamed is None or isinstance(renamed, Mapping) else read_dictionary(renamed)
        return cls(
            ids=np.array(genes, dtype=str),
            tokens=np.array([numbered[gene] for gene in genes], dtype=np.int32),
            medians=np.array([known[gene] for gene in genes], dtype=np.float64),
            specials=special_tokens,
            numbered=numbered,
            renamed=None if other is None else {str(old): str(new) for old, new in other.items()},
            name=name,
        )

    def places_of(self, names: pd.Index, identifiers: Identifiers) -> NDArray[np.int64]:
        """Find the gene of each column.

        Parameters
        ----------
        names
            Of the columns.
        identifiers
            What they are.

        Returns
        -------
        Place of the gene, -1 where it cannot be ranked, shape (n_vars,). Several columns have the same place only if
        ``renamed`` says so.

        Raises
        ------
        ValueError
            If no gene is found, or a name occurs twice.
        """
        places = np.full(len(names), -1, dtype=np.int64)
        if self.renamed is None:
            match = match_genes(names, GeneVocabulary(self.ids, name=self.name), identifiers=identifiers)
            places[match.columns[match.found]] = np.flatnonzero(match.found)
            return places
        # the published dictionary is the authority here: what it does not list, a version included, is left out
        own = np.asarray(names, dtype=str) if identifiers == "ensembl" else to_ensembl(names, identifiers=identifiers)
        upper = pd.Index(own).str.upper()
        places = pd.Index(self.ids).get_indexer(pd.Index([self.renamed.get(name, "") for name in upper]))
        if not (places >= 0).any():
            message = (
                f"none of the columns {[str(n) for n in names[:3]]} ... leads to a gene of {self.name!r} by the "
                "dictionary of names (renamed=); leave it out to match identifiers as they are, without version"
            )
            raise ValueError(message)
        relevant = upper[places >= 0]
        if relevant.has_duplicates:
            message = (
                f"several columns are called {relevant[relevant.duplicated()][0]!r}; "
                "call adata = bf.pp.merge_duplicates(adata) on counts first"
            )
            raise ValueError(message)
        return np.asarray(places, dtype=np.int64)


def _medians(source: Medians) -> tuple[dict[str, float], str]:
    """Return genes to medians as far as they are known, and where they come from."""
    if isinstance(source, str | Path) and Path(source).suffix not in {".json", ".pkl", ".pickle"}:
        source = GeneVocabulary.from_csv(source)
    if isinstance(source, GeneVocabulary):
        if source.medians is None:
            message = (
                f"the vocabulary {source.name!r} has no medians; bf.pp.build_vocabulary(corpus, unit='counts') takes "
                "them from a corpus"
            )
            raise ValueError(message)
        found: dict[str, Any] = dict(zip(source.ids.tolist(), source.medians.tolist(), strict=True))
        name = source.name
    elif isinstance(source, str | Path):
        found, name = dict(read_dictionary(source)), Path(source).name
    else:
        found, name = dict(source), "the medians"
    try:
        numbers = np.array(list(found.values()), dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.zeros(len(found))
    # NaN is a gene of which no median is known
    wrong = np.flatnonzero((numbers <= 0) | np.isinf(numbers))
    if len(wrong):
        gene = list(found)[wrong[0]]
        message = f"the median of {gene!r} is {found[gene]!r} in {name!r}; medians of counts above zero are positive"
        raise ValueError(message)
    known = ~np.isnan(numbers)
    return {gene: float(number) for gene, number, is_known in zip(found, numbers, known, strict=True) if is_known}, name


def _tokens(source: Tokens | None, names: list[str]) -> dict[str, int]:
    if source is None:
        return {name: number for number, name in enumerate(names)}
    found: dict[str, Any] = dict(source) if isinstance(source, Mapping) else dict(read_dictionary(source))
    wrong = {name: token for name, token in found.items() if not isinstance(token, int | np.integer) or token < 0}
    if wrong or len(set(found.values())) < len(found):
        example = dict(list(wrong.items())[:1]) or "the same token for several names"
        message = f"tokens are whole numbers from 0, each for one name; the dictionary holds {example}"
        raise ValueError(message)
    return {name: int(token) for name, token in found.items()}
