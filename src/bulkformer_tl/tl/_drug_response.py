"""Drug response: what is predicted of lines and drugs, each drug by itself first, beside simple baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import DrugResponseKeys
from bulkformer_tl.tl._mudata import takes_mudata
from bulkformer_tl.tl._pair_features import DEFAULT, Features, read_features, same_features
from bulkformer_tl.tl._pair_task import judge_pairs, keep_pair_head, pair_params, read_inputs, resolve_options, tables
from bulkformer_tl.tl._pairs import Pairs
from bulkformer_tl.tl._response import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from bulkformer_tl.metrics import Protocol


@takes_mudata
def drug_response(
    adata: AnnData,
    response: pd.DataFrame | str,
    *,
    drugs: Mapping[str, str] | pd.Series | pd.DataFrame | None = None,
    fingerprint: tuple[int, int] = DEFAULT,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    lines: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    unseen: Literal["line", "drug", "both", "pair"] | None = None,
    head: str | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    reference: AnnData | None = None,
    key_added: str = "drug_response",
    copy: bool = False,
) -> AnnData | None:
    """Predict how lines respond to drugs from a representation, and compare it with simple baselines.

    Drugs differ far more from each other than lines do under one drug, so that a correlation over all pairs mostly says
    that potent drugs are potent: the drugs' own means, which know nothing of a line, reach 0.9. Scores within each drug
    therefore come first; those within each line and over all pairs stand beside them, with their axis.

    Each measured pair is predicted by a head that was fitted without its fold, all other pairs by one that was fitted
    to everything measured. Whatever is fitted is fitted inside the fold.

    Parameters
    ----------
    adata
        Samples by genes, with the representation in ``obsm``; or a :class:`~mudata.MuData`, as in
        :func:`bulkformer_tl.tl.classify`.
    response
        Lines by drugs, ``NaN`` where not tested: ln(IC50), AUC or another number, or booleans for classes; or a key of
        ``obsm`` that holds such a data frame.
    drugs
        SMILES by name of the drug, or a data frame of drugs by features. Needed to predict drugs that were not trained
        on; drugs with the same features are kept in one fold.
    fingerprint
        Radius and number of bits of the Morgan fingerprints that SMILES are turned into by RDKit.
    use_rep
        Key of ``obsm``, such as ``"X_bulkformer"`` or ``"X_pca"``; ``None`` takes expression itself.
    layer
        ln(TPM+1) for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    lines
        Column of ``obs`` that names lines as ``response`` does; ``None`` takes ``obs_names``. Samples of one line are
        kept together.
    groups
        Column of ``obs`` that names what else must stay together, such as the patient.
    covariates
        Columns of ``obs``, such as the tissue of origin, for the baseline ``"covariates"``: the linear head on them.
    unseen
        What a tested pair does not share with those that are trained on: ``"line"``, ``"drug"`` or ``"both"``, or
        ``"pair"``, which splits pairs at random and has seen both partners of nearly all of them. ``None`` takes
        ``"line"``, and ``"pair"`` with the paper's protocol.
    head
        ``"linear"``: a ridge regression per drug on the representation, whose coefficients are regressed on the drugs'
        features for drugs that are not trained on (two-step kernel ridge regression, Stock et al. 2018,
        doi:10.1162/neco_a_01096). ``"mlp"``: one network on both features side by side. ``None`` takes that of the
        protocol, or ``"linear"``. Classes are fitted as 0 and 1 by squared error.
    protocol
        Splits, head, baselines and bootstrap; ``None`` takes ``bf.metrics.Protocol()``. Baselines are ``"drug_mean"``;
        ``"additive"``, an effect of the line and one of the drug; ``"nearest_drug"``, what is known of the drug with
        the most similar features; ``"raw"`` and ``"pca"``, the linear head on all genes and on 50 components; and
        ``"untrained"``, on the encoder with random weights; and ``"covariates"`` where there are some. Intervals
        resample what is unseen. ``"paper"`` takes :func:`bulkformer_tl.metrics.paper_protocol`, and logs what its
        numbers must not be taken for.
    reference
        Lines to train on in place of those of ``adata``, found in ``response`` alike. Those that share a group or are
        near-duplicates of a sample of ``adata`` are left out.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.obsm[key_added + "_pred"]`` : :class:`numpy.ndarray` (shape ``(n_obs, drugs)``, dtype ``float64``)
        Predicted response in the unit of ``response``, for classes a score of about 0 to 1; drugs in the order of
        ``adata.uns[key_added]["drugs"]``.
    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        Scores of the representation and of each baseline along the axes ``"per_drug"``, ``"per_line"`` (means over
        drugs and over lines) and ``"global"``: ``pearson``, ``spearman`` and ``rmse``, or ``auroc`` and ``brier`` of
        classes. Within a drug or line, entries of one test fold are compared with each other; what is constant there,
        as the mean of a drug is, has no correlation. Runs with another representation or head on the same pairs and
        folds add their rows.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Representation minus baseline on the same resamples; ``better`` names the one that the interval favours.
    ``adata.uns[key_added]["per_drug"]``, ``adata.uns[key_added]["per_line"]`` : :class:`pandas.DataFrame`
        The scores of each drug and of each line, and of how many pairs.
    ``adata.uns[key_added]["drugs"]`` : :class:`numpy.ndarray`
        Names of the drugs.
    ``adata.uns[key_added]["head"]`` : :class:`dict`
        The head fitted to all measured pairs; see :func:`bulkformer_tl.tl.fitted_head`.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    ValueError
        If no sample is in ``response``, it is constant or empty, a drug is measured in too few lines, a SMILES is no
        molecule, features are needed and absent, or a slot holds something else.
    KeyError
        If a column, layer or representation is not there, or a drug has no features.
    TypeError
        If ``response`` is no table of numbers or booleans.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame(rng.normal(size=(adata.n_obs, 3)), index=adata.obs_names, columns=["A", "B", "C"])
    >>> bf.tl.drug_response(adata, table, use_rep=None, layer="log_tpm", groups="donor")
    >>> adata.obsm["drug_response_pred"].shape == (adata.n_obs, 3)
    True
    """
    check_anndata(adata)
    keys = DrugResponseKeys(key_added)
    check_slots(adata, keys.key, [keys.prediction])
    readable = layer is not None or getattr(adata, "X", None) is not None
    reads = {"use_rep": use_rep, "layer": layer, "groups": groups, "lines": lines}
    options = resolve_options(
        "drug_response",
        "drug",
        unseen,
        head,
        protocol,
        readable=readable,
        described=drugs is not None,
        covariates=covariates,
        **reads,
    )
    parts = [adata] if reference is None else [reference, adata]
    table = read_table(parts, _table(parts, response), lines=lines, name="response", kind="drug")
    found = None
    if drugs is not None:
        found = read_features(drugs, kind="drug", wanted=table.columns, fingerprint=fingerprint)
    pairs = _pairs(parts, table, found, read_inputs(parts, table, options))
    verdict = judge_pairs(parts, pairs, options)
    params = pair_params(adata, verdict)
    extra: dict[str, Any] = {"drugs": np.array(pairs.columns, dtype=object)}
    extra |= keep_pair_head(verdict, params, [] if found is None else found.names)
    if (verdict.filled.folds[verdict.own] >= 0).any():
        more, params["fingerprint"] = tables(adata, keys.key, verdict)
        extra |= more
    written = copied(adata) if copy else adata
    write_results(written, keys.key, {keys.prediction: verdict.predicted}, params, extra)
    return written if copy else None


def _table(parts: list[AnnData], response: pd.DataFrame | str) -> Any:
    """Return the data frame that is passed, or that lies in ``obsm`` under a key."""
    if not isinstance(response, str):
        return response
    for part in parts:
        if response not in part.obsm:
            message = (
                f"adata.obsm has no {response!r}; it holds {sorted(part.obsm)}. Pass a data frame of lines by drugs"
            )
            raise KeyError(message)
        if not isinstance(part.obsm[response], pd.DataFrame):
            message = f"adata.obsm[{response!r}] is an array without names of drugs; make it a data frame"
            raise TypeError(message)
    return pd.concat([part.obsm[response] for part in parts])


def _pairs(parts: list[AnnData], table: Any, features: Features | None, inputs: dict[str, Any]) -> Pairs:
    matrix = None if features is None else features.matrix
    return Pairs(
        known=table.known,
        classes=table.classes,
        columns=table.columns,
        features=matrix,
        column_groups=same_features(matrix, len(table.columns)),
        n_reference=parts[0].n_obs if len(parts) > 1 else 0,
        **inputs,
    )
