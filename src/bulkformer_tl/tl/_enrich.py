"""Gene sets among the genes that a screen found, by decoupler."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, get_params, write_results
from bulkformer_tl._optional import require
from bulkformer_tl._vocabulary import gene_table, strip_version
from bulkformer_tl.tl._gene_sets import read_gene_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

logger = logging.getLogger(__name__)

METHODS = ("ulm", "ora", "gsea")


def enrich(
    adata: AnnData,
    key: str,
    *,
    gene_sets: str | Path | Mapping[str, Sequence[str]],
    method: Literal["ulm", "ora", "gsea"] = "ulm",
    symbols: str | None = None,
    min_genes: int = 5,
    rng: int = 0,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Ask which gene sets the genes of a screen belong to, before and after imputation.

    Needs decoupler (extra ``de``). Genes that were not tested count neither for a set nor as background.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.biomarkers` or
        :func:`bulkformer_tl.tl.differential_expression`.
    key
        Name of that result.
    gene_sets
        A GMT file, such as those of MSigDB, or names of sets and their genes.
    method
        ``"ulm"``: slope of the gene's statistic on membership, a t-test of a set's genes against all others.
        ``"gsea"``: running sum over ranked statistics against 1,000 permutations of genes. Both read the signed
        statistic of every gene. ``"ora"``: Fisher's exact test of the genes below the result's false discovery rate.
    symbols
        Column of ``var`` with the names that the sets use. ``None`` takes ``var_names``, or, where none of them is in a
        set, the symbols of Ensembl ids in the package's gene table.
    min_genes
        Tested genes that a set has to have.
    rng
        Seed of ``"gsea"``.
    key_added
        Name of the result; ``None`` takes the key and ``"_enrichment"``.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.uns[key_added]["sets"]`` : :class:`pandas.DataFrame`
        One row per set, and per ``values`` where imputed genes were compared (``"measured"``, ``"imputed"``): ``set``;
        ``n_genes`` tested; ``score``, decoupler's, positive where genes of the set are higher (``"ora"``: logarithm of
        the odds ratio); ``fdr`` (Benjamini and Hochberg over sets); and ``found``, those of its genes that are below
        the screen's false discovery rate. Sorted by ``fdr``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, with the number of genes in any set.

    Raises
    ------
    KeyError
        If there is no such result or column.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no GMT file, no set names enough tested genes, or a slot holds something else.
    ImportError
        If decoupler is not installed.

    Notes
    -----
    Genes of a set go together, so that ``"ulm"`` and ``"ora"``, which take genes as independent, find too much; read
    the order of sets rather than their p-values.
    """
    check_anndata(adata)
    key_added = f"{key}_enrichment" if key_added is None else key_added
    check_slots(adata, key_added, [])
    if method not in METHODS:
        message = f"method is {method!r}; choose among {list(METHODS)}"
        raise ValueError(message)
    tables, alpha = _read_tables(adata, key)
    pairs = read_gene_sets(gene_sets)
    names = _names(adata, pairs, symbols)
    require("decoupler", extra="de", purpose="bf.tl.enrich")
    found = []
    for values, table in tables.items():
        tested = table[table["statistic"].notna()].assign(name=names)
        tested = tested[~tested["name"].duplicated() & (tested["name"] != "")].set_index("name")
        here = _keep(pairs, tested.index, min_genes, values)
        found.append(_test(tested, here, method, alpha, rng).assign(values=values))
    sets = pd.concat(found, ignore_index=True)
    sets = sets[["values", "set", "n_genes", "score", "fdr", "found"]]
    params = {
        "task": "enrich",
        "screen": key,
        "method": method,
        "gene_sets": str(gene_sets) if not hasattr(gene_sets, "keys") else "given",
        "symbols": symbols or "",
        "min_genes": min_genes,
        "alpha": alpha,
        "n_sets": int(sets["set"].nunique()),
    }
    best = sets.iloc[0]
    logger.info(
        "%s: %d sets, first %s (score %.2f, FDR %.2g)", key_added, params["n_sets"], *best[["set", "score", "fdr"]]
    )
    target = copied(adata) if copy else adata
    write_results(target, key_added, {}, params, {"sets": sets})
    return target if copy else None


def _read_tables(adata: AnnData, key: str) -> tuple[dict[str, pd.DataFrame], float]:
    params, entry = get_params(adata, key), adata.uns.get(key, {})
    if not params or "genes" not in entry:
        message = (
            f"adata.uns[{key!r}] holds no tested genes; call bf.tl.differential_expression or bf.tl.biomarkers first"
        )
        raise KeyError(message)
    tables = {"measured": entry["genes"]}
    return tables | ({"imputed": entry["imputed"]} if "imputed" in entry else {}), float(params["alpha"])


def _names(adata: AnnData, pairs: pd.DataFrame, symbols: str | None) -> pd.Series[Any]:
    """Return what the sets call each gene, by gene; empty where they have no name for it."""
    index, wanted = pd.Index(adata.var_names.astype(str)), pairs["target"]
    if symbols is not None:
        if symbols not in adata.var:
            message = f"adata.var has no column {symbols!r} (symbols); its columns are {adata.var.columns.tolist()}"
            raise KeyError(message)
        text = adata.var[symbols].astype(object)
        named = pd.Series(text.where(text.notna(), "").astype(str).to_numpy(), index=index)
    else:
        named = pd.Series(index.to_numpy(), index=index)
        if not named.isin(wanted).any():
            known = gene_table()["symbol"].reindex(strip_version(index)).fillna("")
            named = pd.Series(known.to_numpy(), index=index)
            logger.info("gene sets are matched by the symbols of the package's gene table")
    if not named.isin(wanted).any():
        message = (
            f"gene_sets names no gene of adata: it holds {wanted.iloc[:3].tolist()} and adata "
            f"{named[named != ''].iloc[:3].tolist() or index[:3].tolist()}; pass as symbols= the column of adata.var "
            "with the same kind of names"
        )
        raise ValueError(message)
    return named


def _keep(pairs: pd.DataFrame, tested: pd.Index, min_genes: int, values: str) -> pd.DataFrame:
    """Return the pairs of tested genes, of sets that have enough of them."""
    here = pairs[pairs["target"].isin(tested)]
    sizes = here["source"].value_counts()
    enough = sizes.index[sizes >= min_genes]
    if not len(enough):
        message = (
            f"no gene set has {min_genes} {values} genes that were tested; the largest of {pairs['source'].nunique()} "
            f"has {int(sizes.max()) if len(sizes) else 0}. Lower min_genes, or pass sets of these genes"
        )
        raise ValueError(message)
    return here[here["source"].isin(enough)]


def _test(tested: pd.DataFrame, pairs: pd.DataFrame, method: str, alpha: float, rng: int) -> pd.DataFrame:
    import decoupler as dc

    found = tested.index[tested["fdr"] <= alpha]
    order = pd.Index(pairs["source"].unique())
    if method == "ora":
        result = dc.mt.query_set(features=list(found), net=pairs, n_bg=len(tested), tmin=1).set_index("source")
        score, fdr = result["stat"].reindex(order), result["padj"].reindex(order)
    else:
        data = tested[["statistic"]].T.astype(np.float64)
        options = {"times": 1000, "seed": rng} if method == "gsea" else {}
        scores, corrected = getattr(dc.mt, method)(data, pairs.assign(weight=1.0), tmin=1, **options)
        score, fdr = scores.iloc[0].reindex(order), corrected.iloc[0].reindex(order)
    members = pairs[pairs["target"].isin(found)].groupby("source")["target"].agg(", ".join)
    table = pd.DataFrame(
        {
            "set": order.to_numpy(),
            "n_genes": pairs["source"].value_counts().reindex(order).to_numpy(),
            "score": score.to_numpy(dtype=np.float64),
            "fdr": fdr.to_numpy(dtype=np.float64),
            "found": members.reindex(order).fillna("").to_numpy(),
        }
    )
    return table.sort_values("fdr", kind="stable")
