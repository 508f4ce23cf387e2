"""Response to a perturbation: treated profiles from controls and what is known of the perturbation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._kept_files import as_entry
from bulkformer_tl._keys import ResponseKeys
from bulkformer_tl.metrics import Protocol
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.tl._columns import covariate_matrix
from bulkformer_tl.tl._judge import report_score
from bulkformer_tl.tl._mudata import takes_mudata
from bulkformer_tl.tl._perturbation_features import read_features
from bulkformer_tl.tl._perturbation_head import TASK
from bulkformer_tl.tl._perturbation_judge import (
    BASELINES,
    COVARIATES,
    MLP,
    NEAREST,
    RAW,
    Candidate,
    Study,
    judge_responses,
)
from bulkformer_tl.tl._perturbation_model import HEADS, check_options
from bulkformer_tl.tl._perturbation_pairs import read_pairs, read_profiles
from bulkformer_tl.tl._perturbation_scores import conditions
from bulkformer_tl.tl._perturbation_tables import (
    as_results,
    describe,
    mark_of,
    merge_responses,
    response_head,
    tabulate_responses,
)
from bulkformer_tl.tl._samples import EXPRESSION, Block, fused_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

    from bulkformer_tl.tl._perturbation_pairs import Pairs, Profiles

logger = logging.getLogger(__name__)


@takes_mudata
def perturbation_response(
    adata: AnnData,
    perturbation: str,
    *,
    control: str,
    features: Mapping[str, str] | Mapping[str, Mapping[str, float]] | pd.DataFrame | None = None,
    match: str | Sequence[str] | None = None,
    dose: str | None = None,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    head: str | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    reference: AnnData | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Predict treated profiles of perturbations that were not seen, and compare them with simple baselines.

    Every treated sample is paired with the mean :math:`\bar x` of its matched controls. The change
    :math:`\Delta = y - \bar x` is written in its leading components, and a head predicts these from the mean
    representation of the controls and from the features of the perturbation; the prediction is
    :math:`\hat y = \max(\bar x + \hat\Delta, 0)`. Each perturbation (or each value of ``groups``) is predicted by a
    head, components and scales that were fitted without it.

    Parameters
    ----------
    adata
        Samples by genes, treated and untreated, with the representation in ``obsm``; or a :class:`~mudata.MuData`, as
        in :func:`bulkformer_tl.tl.classify`, of whose modality ``"rna"`` (or the first) profiles are predicted.
    perturbation
        Column of ``obs`` with the perturbation of each sample. Samples without a label are left out.
    control
        Its label of untreated samples.
    features
        What is known of each perturbation: its SMILES (Morgan fingerprints of 2,048 bits, radius 2; needs the extra
        ``drugs``); its perturbed genes with -1 for knock-down and +1 for over-expression, such as
        ``{"shSRF": {"ENSG00000112658": -1}}``, each gene a column of its own; or a data frame with a row for each, such
        as :func:`bulkformer_tl.tl.gene_features` makes of gene vectors, without which an unseen gene looks like no
        other. ``None`` knows nothing: an unseen perturbation is predicted from its controls alone.
    match
        Columns of ``obs`` that treated samples share with their controls, such as the donor, line or batch; ``None``
        takes the mean of all controls.
    dose
        Column of ``obs`` with the amount (dose, time), read as a logarithm; it scales the features.
    use_rep
        Key of ``obsm``; ``None`` takes expression itself.
    layer
        ln(TPM+1); ``None`` reads ``X``. Genes that are missing in any of these samples are left out.
    groups
        Column of ``obs`` whose values are held out as a whole: the donor or line for unseen contexts, the scaffold or
        class for unseen kinds of perturbations. ``None`` holds out perturbations.
    covariates
        Columns of ``obs``, such as age and tissue, for the baseline ``"covariates"``: the linear head on them in place
        of the representation. A missing number takes the training mean.
    head
        ``"linear"`` (ridge regression) or ``"mlp"``; ``None`` takes that of the protocol, or ``"linear"``.
    protocol
        Splits, penalties, baselines and bootstrap; ``None`` takes five folds, or fewer where there are fewer
        perturbations. ``scheme="leave_one_group_out"`` leaves out each by itself. Baselines are ``"no_change"`` (the
        control), ``"mean_change"`` of the training perturbations, ``"nearest"`` (the change of the training
        perturbation with the most similar features, at the closest dose), ``"covariates"``, ``"mlp"`` and ``"raw"`` (a
        perceptron, and the head that is judged, on expression in place of the representation). Near-duplicates are not
        looked for: profiles under weak perturbations are alike. ``"paper"`` takes
        :func:`bulkformer_tl.metrics.paper_protocol`, of a task that the authors withdrew.
    reference
        Treated samples and their controls to train on in place of those of ``adata``, with the same columns, on the
        genes that both have. Perturbations (or values of ``groups``) that ``adata`` has as well are left out.
    key_added
        Name of the result; ``None`` takes ``"perturbation_response"``.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (dtype ``float32``, shape ``(n_obs, n_vars)``)
        Predicted profile of each treated sample, ln(TPM+1), out of fold; ``NaN`` elsewhere.
    ``adata.varm[key_added + "_measured"]`` : :class:`numpy.ndarray` (dtype ``float32``)
        True mean change of ln(TPM+1), a column for each row of ``"perturbations"`` of one representation.
    ``adata.varm[key_added + "_predicted"]`` : :class:`numpy.ndarray` (dtype ``float32``)
        The same as it was predicted.
    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        Pearson and Spearman correlation over genes of the change (``"pearson_delta"``) and of the profile, and RMSE,
        over all genes and (``"_top20"``) over the twenty whose true change is largest, for the representation and each
        baseline. They are computed within each perturbation (dose, held-out group) from means over its samples and
        averaged over what is held out, which intervals resample.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Representation minus baseline on the same resamples; ``better`` names the one that the interval favours.
    ``adata.uns[key_added]["perturbations"]`` : :class:`pandas.DataFrame`
        The same scores of each perturbation, dose and held-out group.
    ``adata.uns[key_added]["head"]`` : :class:`dict`
        The head fitted to all pairs (or to those of the reference); see :func:`bulkformer_tl.tl.fitted_head`.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    KeyError
        If a column, layer, representation, gene, or what is known of a perturbation is not there.
    TypeError
        If doses or features are of a kind that cannot be read.
    ValueError
        If controls are missing, doses are not positive, a SMILES is no molecule, nothing is left to train on, values
        are no ln(TPM+1), or a slot holds something else.

    Notes
    -----
    Correlations of profiles are high for any prediction, since genes differ more than treatments: look at those of the
    change, and at ``"no_change"``.

    If training and test perturbations share their controls, the controls' noise stands in all changes and is predicted:
    without any response the correlation of the change can pass 0.6. So controls that serve several held-out units are
    dealt into halves, one to learn and predict from and one to measure true changes by; the head that is kept is fitted
    with all of them. A single control cannot be halved. The log says how many samples that concerns, and what counts
    then is the difference from ``"mean_change"``, which is lifted as well.

    Values of LINCS L1000 (978 measured genes, intensities of beads or z-scores) are refused or warned of: they are no
    ln(TPM+1), for which the authors withdrew their compound task.

    Examples
    --------
    >>> import numpy as np
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> adata.obs["treatment"] = np.resize(["none", "a", "b", "c"], adata.n_obs)
    >>> bf.tl.perturbation_response(adata, "treatment", control="none", use_rep=None, layer="log_tpm")
    >>> bf.tl.fitted_head(adata, "perturbation_response").predict(adata[:2], "a", layer="log_tpm").shape == (
    ...     2,
    ...     adata.n_vars,
    ... )
    True
    """
    check_anndata(adata)
    keys = ResponseKeys(key_added or TASK)
    check_slots(adata, keys.key, [keys.profiles, keys.predicted, keys.measured])
    parts = [adata] if reference is None else [reference, adata]
    pairs = read_pairs(parts, perturbation, control=control, match=match, dose=dose, groups=groups)
    protocol = _protocol(protocol, pairs)
    head, options = _head(protocol, head)
    known = read_features(pairs.names, features, adata.var_names)
    blocks = fused_blocks(adata, use_rep)
    absent = {NEAREST: features is None and groups is None, COVARIATES: covariates is None}
    baselines = [*_baselines(protocol, head, use_rep, absent), *(block.name for block in blocks)]
    profiles, whole = read_profiles(parts, pairs, use_rep=use_rep, layer=layer, rng=protocol.rng)
    study = Study(pairs, profiles, known, protocol)
    name = (use_rep or EXPRESSION) + ("" if head == "linear" else f" ({head})")
    candidates = _candidates(name, profiles, head, options, blocks)
    candidates |= {} if covariates is None else _covariates(parts, covariates, pairs)
    table, condition = conditions(pairs)
    found = judge_responses(study, name, candidates, baselines, condition)
    params = {
        "task": TASK,
        "perturbation": perturbation,
        "control": control,
        "match": [match] if isinstance(match, str) else list(match or []),
        "dose": dose or "",
        "use_rep": use_rep or "",
        "layer": layer or "X",
        "groups": groups or "",
        "covariates": list(covariates or []),
        "representation": name,
        "head": head,
        "baselines": baselines,
        **describe(adata, study, use_rep, len(table)),
    }
    params["fingerprint"] = mark_of(params, pairs, known.matrix, found.folds)
    tables = tabulate_responses(study, table, found, params)
    final = Study(pairs, whole, known, protocol).fit_all(Candidate(whole.inputs, head, options, blocks))
    extra: dict[str, Any] = merge_responses(adata, keys.key, params["fingerprint"], tables)
    extra["head"] = as_entry(response_head(study, final, params))
    _report(keys.key, params, protocol, tables)
    written = copied(adata) if copy else adata
    write_results(written, keys.key, as_results(adata, keys, study, found), params, extra)
    return written if copy else None


def _candidates(
    name: str,
    profiles: Profiles,
    head: str,
    options: dict[str, Any],
    blocks: tuple[Block, ...],
) -> dict[str, Candidate]:
    """List what has a head: the representation, each of its modalities, and expression under two heads."""
    alone = {block.name: Candidate(profiles.inputs[:, block.columns], head, options) for block in blocks}
    return {
        name: Candidate(profiles.inputs, head, options, blocks),
        **alone,
        MLP: Candidate(profiles.control, "mlp", {}),
        RAW: Candidate(profiles.control, head, options),
    }


def _covariates(parts: list[AnnData], names: Sequence[str], pairs: Pairs) -> dict[str, Candidate]:
    """Return the linear head on covariates of the treated samples."""
    found = covariate_matrix(parts, names)[pairs.rows].astype(np.float64)
    each = Block(COVARIATES, slice(0, found.shape[1]), "each")
    return {COVARIATES: Candidate(found, "linear", {}, (each,))}


def _head(protocol: Protocol, head: str | None) -> tuple[str, dict[str, Any]]:
    """Return the head and its options, or say which there are."""
    chosen, options = protocol.resolve_head(head)
    if chosen not in HEADS:
        message = f"there is no head {chosen!r} for a response; choose among {list(HEADS)}"
        raise ValueError(message)
    check_options(chosen, options)
    return chosen, options


def _report(key: str, params: dict[str, Any], protocol: Protocol, tables: dict[str, pd.DataFrame]) -> None:
    """Warn of what scores must not be taken for, and log the main one."""
    n_lifted = params["n_sharing_one_control"]
    if protocol.caveat:
        logger.warning("%s: %s", key, protocol.caveat)
    if n_lifted:
        logger.warning(
            "%s: %d treated samples share their only control with others that are held out; its noise is in all their "
            "changes and lifts every score of the change, that of mean_change too: look at the difference",
            key,
            n_lifted,
        )
    report_score(key, params["representation"], "pearson_delta", tables["scores"], tables["differences"])


def _protocol(protocol: Protocol | Literal["paper"] | None, pairs: Pairs) -> Protocol:
    if protocol is None:
        return Protocol(n_splits=max(2, min(5, len(pairs.unit_names))))
    return resolve_protocol(protocol, TASK)


def _baselines(protocol: Protocol, head: str, use_rep: str | None, absent: dict[str, bool]) -> list[str]:
    """List the baselines that the protocol names, or those that say something here."""
    if protocol.baselines is not None:
        unknown = [name for name in protocol.baselines if name not in BASELINES]
        if unknown:
            message = f"there is no baseline {unknown[0]!r} for a response; choose among {list(BASELINES)}"
            raise ValueError(message)
        if COVARIATES in protocol.baselines and absent[COVARIATES]:
            message = "the baseline 'covariates' needs covariates=, columns of adata.obs such as ['age', 'sex']"
            raise ValueError(message)
        return list(protocol.baselines)
    # without features and with unseen perturbations all are equally near; expression is no baseline of itself
    idle = absent | {RAW: use_rep is None, MLP: use_rep is None and head == "mlp"}
    return [name for name in BASELINES if not idle.get(name, False)]
