"""The corpus of the embedded checkpoint: real cohorts of many studies as one table of ln(TPM+1).

``python training/corpus.py --data $BULKFORMER_TL_DATA --out genes.csv`` chooses the vocabulary and writes it.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import yaml

from bulkformer_tl._vocabulary import GeneVocabulary, gene_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CHROMOSOMES = [*map(str, range(1, 23)), "X", "Y", "MT"]
#: A gene enters the vocabulary if it was read at least once in this share of the files.
VOCABULARY_SHARE = 0.4
#: A gene that a complete file does not list is a measured zero if files that list it detect it in fewer samples.
DETECTED_SHARE = 0.5
#: Units that still have to be divided by gene length.
PER_LENGTH = ("counts", "rsem", "coverage")


@dataclass(frozen=True)
class Corpus:
    """Expression of all samples with the study each belongs to.

    Parameters
    ----------
    expression
        ln(TPM+1), shape (N, G), float32; ``NaN`` is missing.
    table
        One row per sample: ``file``, ``group`` and ``fold`` as in ``splits.yaml``, ``name``.
    """

    expression: NDArray[np.float32]
    table: pd.DataFrame


def entries() -> list[dict[str, Any]]:
    """Return the files of the corpus as ``corpus.yaml`` lists them."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def splits() -> dict[str, dict[str, Any]]:
    """Return group and left-out fold of each file as ``splits.yaml`` lists them."""
    listed = yaml.safe_load(Path(__file__).with_name("splits.yaml").read_text(encoding="utf-8"))
    return {entry["file"]: entry for entry in listed}


def choose_vocabulary(folder: Path) -> GeneVocabulary:
    """Choose protein-coding genes of known length on the primary chromosomes that 40 % of the files hold.

    Parameters
    ----------
    folder
        Folder of the files.

    Returns
    -------
    The vocabulary, in the order of the Ensembl ids. A file holds the genes that were read at least once in it.
    """
    table = gene_table()
    known = (table["biotype"] == "protein_coding") & table["chromosome"].isin(CHROMOSOMES) & table["length"].notna()
    table = table[known].sort_index()
    names = [ad.read_h5ad(folder / entry["file"], backed="r").var_names for entry in entries()]
    share = np.mean([table.index.isin(names_of_file) for names_of_file in names], axis=0)
    table = table[share >= VOCABULARY_SHARE]
    return GeneVocabulary(
        ids=table.index.to_numpy(dtype=str),
        symbols=table["symbol"].to_numpy(dtype=str),
        lengths=table["length"].to_numpy(dtype=np.float64),
        name="bulkformer-mini",
    )


def load(folder: Path, vocabulary: GeneVocabulary) -> Corpus:
    """Read all files and bring them to ln(TPM+1) over the vocabulary genes that each file measured.

    Parameters
    ----------
    folder
        Folder of the files.
    vocabulary
        Genes with lengths.

    Returns
    -------
    The corpus, in the order of ``corpus.yaml``.
    """
    listed, split = entries(), splits()
    raw = [_read(folder / entry["file"], vocabulary, per_length=entry["unit"] in PER_LENGTH) for entry in listed]
    seldom = _detected(raw) < DETECTED_SHARE
    values, tables = [], []
    for entry, (names, amounts) in zip(listed, raw, strict=True):
        if entry["absent"] == "zero":
            amounts[:, np.isnan(amounts[0]) & seldom] = 0.0
        values.append(np.log1p(1e6 * amounts / np.nansum(amounts, axis=1, keepdims=True)).astype(np.float32))
        own = split[entry["file"]]
        tables.append(pd.DataFrame({"file": entry["file"], "group": own["group"], "fold": own["fold"], "name": names}))
    return Corpus(np.concatenate(values), pd.concat(tables, ignore_index=True))


def _read(path: Path, vocabulary: GeneVocabulary, *, per_length: bool) -> tuple[pd.Index, NDArray[np.float64]]:
    """Return sample names and amounts proportional to TPM, (n, G), ``NaN`` for genes that the file does not list."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="anndata")
        adata = ad.read_h5ad(path)
    dense = adata.X if isinstance(adata.X, np.ndarray) else adata.X.toarray()
    amounts = pd.DataFrame(dense, columns=adata.var_names).reindex(columns=vocabulary.ids).to_numpy(dtype=np.float64)
    if per_length:
        amounts = amounts / vocabulary.lengths
    return adata.obs_names, amounts


def _detected(raw: Sequence[tuple[pd.Index, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Return each gene's share of samples with a read, averaged over the files that list it, shape (G,)."""
    shares = np.array([(amounts > 0).mean(axis=0) for _, amounts in raw])
    listed = np.array([~np.isnan(amounts[0]) for _, amounts in raw])
    return shares.sum(axis=0) / np.maximum(listed.sum(axis=0), 1)


def main() -> None:
    """Write ``genes.csv``: the vocabulary with the corpus mean of ln(TPM+1)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the cohorts")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    vocabulary = choose_vocabulary(arguments.data)
    corpus = load(arguments.data, vocabulary)
    write_genes(vocabulary, np.nanmean(corpus.expression, axis=0), arguments.out)
    missing = np.isnan(corpus.expression)
    print(f"{len(vocabulary):,} genes, {len(corpus.expression):,} samples, {missing.mean():.1%} of the entries missing")
    per_sample = pd.Series(missing.mean(axis=1)).groupby(corpus.table["file"]).first()
    print(per_sample.round(3).to_string())


def write_genes(vocabulary: GeneVocabulary, mean: NDArray[np.floating], path: Path) -> None:
    """Write ``ensembl_id``, ``symbol``, ``length`` (bp) and ``mean`` (ln(TPM+1))."""
    vocabulary.to_csv(path)
    pd.read_csv(path, keep_default_na=False).assign(mean=np.round(mean, 4)).to_csv(path, index=False)


if __name__ == "__main__":
    main()
