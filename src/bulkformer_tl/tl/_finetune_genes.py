"""Judge what an adapted encoder says of genes, beside their frozen vectors and how high and variable they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from bulkformer_tl.tl._classify_genes import _baselines, _columns, _judge
from bulkformer_tl.tl._judge import tabulate
from bulkformer_tl.tl._probe import Predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._finetune_judge import Said
    from bulkformer_tl.tl._finetune_targets import Asked
    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._judge import Verdict


def judge_frozen_genes(
    adata: AnnData,
    one: Asked,
    given: ModelInput,
    vectors: NDArray[np.float32],
    *,
    frozen: str,
    layer: str | None,
    protocol: Protocol,
) -> Verdict:
    """Split the labelled genes and classify them by their frozen vectors and by baselines.

    Parameters
    ----------
    adata
        Samples by genes.
    one
        The target.
    given
        How the model's genes stand among the columns.
    vectors
        Frozen vectors of the labelled genes, the mean over samples, (k, D).
    frozen
        What they are called.
    layer
        ln(TPM+1).
    protocol
        Splits, by as many folds as there are of samples.
    """
    names = [one.name, *one.columns[1:]]
    columns = given.match.columns[one.labelled]
    described = np.isfinite(vectors).all(axis=1)
    table = _columns(adata, list(names), layer).iloc[columns[described]]
    genes = AnnData(obs=table)
    genes.obsm[frozen] = vectors[described]
    protocol, wanted = _baselines(protocol)
    family = one.columns[1] if len(one.columns) > 1 else None
    options: dict[str, Any] = {"use_rep": frozen, "groups": family, "head": None, "protocol": protocol}
    return _judge(genes, one.name, wanted, options)


def described_genes(vectors: NDArray[np.float32], one: Asked) -> NDArray[np.intp]:
    """Return the positions in the vocabulary of labelled genes that have a vector, in the order of the verdict."""
    return np.flatnonzero(one.labelled)[np.isfinite(vectors).all(axis=1)]


def judge_genes(
    verdict: Verdict, tuned: str, places: Sequence[NDArray[np.intp]], said: Sequence[Said], name: str
) -> tuple[NDArray[np.float64], pd.DataFrame, pd.DataFrame, list[str]]:
    """Score what the adapted encoders say of the genes whose labels they had not seen.

    Parameters
    ----------
    verdict
        That of the frozen vectors.
    tuned
        What the adapted encoder is called.
    places
        Where the test genes of each fold stand among those that are predicted.
    said
        One per fold.
    name
        Of the target.

    Returns
    -------
    Probabilities of the genes of the verdict, scores, differences, and the names of the baselines.
    """
    shares = np.full_like(verdict.predictions[verdict.name].predicted, np.nan)
    for split, at, part in zip(verdict.plan.scored, places, said, strict=False):
        shares[split.test] = part.outputs[name][at]
    verdict.predictions[tuned] = Predictions(shares, np.full(len(shares), np.nan))
    verdict.baselines = [verdict.name, *verdict.baselines]
    verdict.name = tuned
    return shares, *tabulate(verdict, {}), verdict.baselines
