"""Survival: out-of-fold risk of samples from a representation, beside simple baselines, under censoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import SurvivalKeys
from bulkformer_tl.metrics._paper import resolve_protocol
from bulkformer_tl.tl._alive import CLASSIFIERS, judge_alive
from bulkformer_tl.tl._judge import merged, report_score
from bulkformer_tl.tl._judge_survival import HEADS, judge_survival
from bulkformer_tl.tl._mudata import takes_mudata
from bulkformer_tl.tl._patients import RISK_GROUPS, read_patients
from bulkformer_tl.tl._survival_tables import describe_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from bulkformer_tl.metrics import Protocol


@takes_mudata
def survival(
    adata: AnnData,
    time: str,
    *,
    event: str,
    strata: str | None = None,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    head: Literal["cox", "mlp"] | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    reference: AnnData | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Predict the risk of each sample from a representation and compare it with simple baselines.

    The hazard is :math:`h_s(t) e^{\eta(x)}` with a baseline hazard :math:`h_s` for each stratum (Cox 1972). Each sample
    whose outcome is known is predicted by a head that was fitted without its fold, samples without an outcome by one
    that was fitted to all others. The head sees the leading 50 components of the representation (of expression itself,
    all), and every candidate is calibrated alike: three inner folds of the training samples say how much its log hazard
    has to be shrunken, and how strata differ.

    Parameters
    ----------
    adata
        Samples by genes, with the representation in ``obsm``. Or a :class:`~mudata.MuData`, as in
        :func:`bulkformer_tl.tl.classify`.
    time
        Column of ``obs`` with the time until event or censoring, above 0; missing where it is not known.
    event
        Column of ``obs``: whether the event happened, boolean or 1 and 0.
    strata
        Column of ``obs``, such as the cancer type: samples are compared within it, in the fit and in the first scores.
    use_rep
        Key of ``obsm``, such as ``"X_bulkformer"`` or ``"X_pca"``; ``None`` takes expression itself.
    layer
        ln(TPM+1) for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    groups
        Column of ``obs`` that names what must stay together, such as the patient.
    covariates
        Columns of ``obs``, such as age and stage: for the baseline ``"covariates"``, for the sum of it and the
        representation (each weighted by the inner folds), and for adjusted hazard ratios.
    head
        ``"cox"`` (elastic net, the default) or ``"mlp"`` (one hidden layer, fitted by the same partial likelihood).
    protocol
        Splits, baselines, bootstrap and ``head_options`` (``penalty``, ``l1_ratio``, ``n_components``; ``hidden``);
        ``None`` takes ``bf.metrics.Protocol()``. Baselines are ``"strata"`` (without strata ``"constant"``), ``"raw"``
        (ridge on all genes), ``"pca"``, ``"covariates"`` and ``"untrained"``. ``"paper"`` classifies alive or dead by a
        random forest as the BulkFormer paper does, scored by AUROC and AUPRC, with a warning: it ignores censoring.
    reference
        Samples to train on in place of those of ``adata``, whose outcomes are then only scored.
    key_added
        Name of the result; ``None`` takes ``"survival"``.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.obs[key_added + "_risk"]`` : :class:`pandas.Series` (dtype ``float64``)
        Log hazard relative to the average training sample, strata included. With ``protocol="paper"`` the probability
        of being dead.
    ``adata.obs[key_added + "_group"]`` : :class:`pandas.Categorical`
        ``"high"`` above the median of the training samples of the fold (and stratum), else ``"low"``.
    ``adata.uns[key_added]["scores"]``, ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Scores of the representation and of each baseline, and differences on the same resamples; see
        :func:`bulkformer_tl.metrics.compare_survival`. Runs with another representation or head on the same samples and
        folds add their rows.
    ``adata.uns[key_added]["strata"]`` : :class:`pandas.DataFrame`
        Harrell's C of the representation within each stratum.
    ``adata.uns[key_added]["curves"]``, ``adata.uns[key_added]["log_rank"]`` : :class:`pandas.DataFrame`, :class:`dict`
        Kaplan-Meier curve of each group with numbers at risk, and the log-rank test between them, within strata.
    ``adata.uns[key_added]["hazard_ratios"]`` : :class:`pandas.DataFrame`
        Hazard ratios of group, risk and covariates, alone and adjusted, with intervals and the p-value of a test of
        proportional hazards. Needs lifelines (the extra ``survival``); absent without it.
    ``adata.uns[key_added]["head"]`` : :class:`dict`
        The head fitted to all training samples; see :func:`bulkformer_tl.tl.fitted_head`.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    ValueError
        If a time is not above 0, no event happens, a stratum has none or one sample, events or groups are too few for
        the folds, expression is no ln(TPM+1), or a slot holds something else.
    KeyError
        If a column, layer or representation is not there.
    TypeError
        If times or events are texts.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> adata.obs["days"] = range(1, adata.n_obs + 1)
    >>> adata.obs["died"] = [i % 3 > 0 for i in range(adata.n_obs)]
    >>> bf.tl.survival(adata, "days", event="died", use_rep=None, layer="log_tpm")
    >>> adata.obs["survival_group"].cat.categories.tolist()
    ['low', 'high']
    """
    check_anndata(adata)
    keys = SurvivalKeys() if key_added is None else SurvivalKeys(key_added)
    check_slots(adata, keys.key, [keys.risk, keys.group])
    given = resolve_protocol(protocol, "survival")
    patients = read_patients(
        adata, time, event=event, strata=strata, groups=groups, protocol=given, reference=reference
    )
    chosen, _ = given.resolve_head(head, HEADS[0])
    options: dict[str, Any] = {"use_rep": use_rep, "layer": layer, "groups": groups, "covariates": covariates}
    options |= {"head": chosen, "protocol": given, "reference": reference, "strata": strata}
    if chosen in HEADS:
        course = judge_survival(adata, time, patients, event=event, **options)
    elif head is None and chosen in CLASSIFIERS:
        course = judge_alive(adata, event, time=time, **options)
    else:
        message = f"there is no head {chosen!r} for survival; choose among {list(HEADS)}"
        raise ValueError(message)
    params, extra = course.params, dict(course.head)
    if len(course.scores):
        params |= {"axis": str(course.scores["axis"].iloc[0]), "fingerprint": course.fingerprint}
        extra |= merged(adata, keys.key, course.fingerprint, course.scores, course.differences)
        extra |= describe_groups(course.plan, patients, course.high, course.risk)
        report_score(keys.key, course.name, str(course.scores["metric"].iloc[0]), course.scores, course.differences)
    own = slice(course.plan.samples.n_reference, None)
    labels = pd.Categorical.from_codes(course.high[own].astype(int).tolist(), categories=pd.Index(RISK_GROUPS))
    target = copied(adata) if copy else adata
    write_results(target, keys.key, {keys.risk: course.risk[own], keys.group: labels}, params, extra)
    return target if copy else None
