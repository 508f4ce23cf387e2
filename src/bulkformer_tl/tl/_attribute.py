"""Which genes the predictions of an adapted encoder rest on, beside those of the same encoder with shuffled weights."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import AttributeKeys
from bulkformer_tl._optional import require
from bulkformer_tl._progress import Progress
from bulkformer_tl.tl._finetune import _all_values
from bulkformer_tl.tl._input import prepare
from bulkformer_tl.tl._predict import pretrained
from bulkformer_tl.train import Adapter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.models import BioFormer, BulkFormer, Geneformer
    from bulkformer_tl.tl._input import ModelInput

logger = logging.getLogger(__name__)

#: Mean rank correlation with attributions of shuffled weights from which they are not to be trusted.
SUSPECT = 0.5
#: Share of the score that attributions may miss.
GAP = 0.05


def attribute(
    adata: AnnData,
    adapter: Adapter | str | Path,
    *,
    target: str | None = None,
    label: str | None = None,
    model: BulkFormer | Geneformer | BioFormer | str | Path | None = None,
    layer: str | None = None,
    samples: Sequence[str] | None = None,
    reference: Sequence[str] | None = None,
    n_steps: int = 32,
    key_added: str = "attributions",
    rng: int = 0,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Attribute predictions of an adapted encoder to genes, by integrated gradients, and check them.

    With the score f of a sample (a class' logit above the mean of all logits, a predicted number, a log hazard), its
    expression x and a baseline b, a gene's attribution is (Sundararajan et al. 2017, arXiv:1703.01365)

    .. math::

        a_g = (x_g - b_g) \int_0^1 \frac{\partial f}{\partial x_g}\left(b + t (x - b)\right) dt,
        \qquad \sum_g a_g = f(x) - f(b).

    Models of ln(TPM+1) are compared with the mean expression of the ``reference``; a Geneformer with a list of padding,
    a BioFormer with bins of zero, along the vectors of their tokens.

    Attributions that stay the same when the weights are shuffled tell of the input, not of what was learnt (Adebayo et
    al. 2018, arXiv:1810.03292). So the same is done after the entries of every weight of encoder and head, the linear
    models of ``bulkformer-mini`` included, were put in another order, and the rank correlation of the absolute
    attributions is reported, with a warning where it is high.

    Parameters
    ----------
    adata
        Samples by genes, with the values that the model reads.
    adapter
        As of :func:`bulkformer_tl.tl.predict`.
    target
        Name of the target; ``None`` takes the first of samples.
    label
        Class whose logit is explained; ``None`` takes the one that is most probable in each sample.
    model
        As of :func:`bulkformer_tl.tl.predict`.
    layer
        Values for the model; ``None`` reads ``X``.
    samples
        Names of the samples to explain; ``None`` takes all.
    reference
        Names of the samples whose mean is the baseline; ``None`` takes all.
    n_steps
        Points of the integral; each is a pass through the encoder and back.
    key_added
        Name of the result.
    rng
        Seed of the order in which weights are put.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        Attributions in units of the score; ``NaN`` in samples that are not explained and genes that the model does not
        know.
    ``adata.var[key_added + "_mean"]`` : :class:`pandas.Series` (dtype ``float64``)
        Mean absolute attribution over samples.
    ``adata.uns[key_added]["samples"]`` : :class:`pandas.DataFrame`
        Of each explained sample: score, what the sum of attributions misses of it, the class that is explained, and the
        rank correlation with shuffled weights.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, with the mean of these correlations, ``randomised_correlation``.

    Raises
    ------
    ValueError
        If the adapter has no such target or class, it is of genes, the model has to be passed, or it or the
        values do not fit.
    KeyError
        If a sample is not there.
    ImportError
        If captum is not installed.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> bf.tl.attribute(adata, "tissue_adapter", target="tissue", layer="log_tpm")  # doctest: +SKIP
    >>> bf.pl.attributions(adata)  # doctest: +SKIP
    """
    require("captum", extra="finetune", purpose="bf.tl.attribute")
    check_anndata(adata)
    keys = AttributeKeys(key_added)
    check_slots(adata, key_added, [keys.layer, keys.mean])
    loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
    name, place = _question(loaded, target, label)
    if n_steps < 2:
        message = f"n_steps is {n_steps}; at least 2 points are needed"
        raise ValueError(message)
    rows, compared = _rows(adata, samples, "samples"), _rows(adata, reference, "reference")
    named = pretrained(loaded) if model is None else model
    given = prepare(adata, model=named, layer=layer, identifiers=None, min_coverage=0.0, device=device)
    loaded.check_model(given.model)
    table, values = _explain(given, loaded, name, place, rows=rows, compared=compared, n_steps=n_steps, rng=rng)
    table.index = adata.obs_names[rows]
    correlation = float(table["randomised_correlation"].mean())
    _report(key_added, table, correlation)
    spread = np.full(adata.shape, np.nan, dtype=np.float32)
    known = given.match.found
    spread[np.ix_(rows, given.match.columns[known])] = values[:, known]
    mean = np.full(adata.n_vars, np.nan)
    mean[given.match.columns[known]] = np.abs(values[:, known]).mean(axis=0)
    classes = loaded.facts["targets"][name]["classes"]
    params = {
        **given.params,
        **{"target": name, "label": "" if place is None else str(classes[place]), "n_steps": n_steps, "rng": rng},
        **{"randomised_correlation": correlation, "method": loaded.config.method, "n": len(rows)},
    }
    written = copied(adata) if copy else adata
    write_results(written, key_added, {keys.layer: spread, keys.mean: mean}, params, {"samples": table})
    return written if copy else None


def _question(adapter: Adapter, target: str | None, label: str | None) -> tuple[str, int | None]:
    """Return the target and the position of the class."""
    known = {name: entry for name, entry in adapter.facts["targets"].items() if entry["kind"] != "genes"}
    if not known or (target is not None and target not in known):
        message = f"the adapter has no target {target!r} of samples; it has {list(known)}"
        raise ValueError(message)
    name = next(iter(known)) if target is None else target
    if label is None:
        return name, None
    classes = [str(one) for one in known[name]["classes"]]
    if str(label) not in classes:
        message = f"target {name!r} has no class {label!r}; it has {classes}"
        raise ValueError(message)
    return name, classes.index(str(label))


def _rows(adata: AnnData, names: Sequence[str] | None, argument: str) -> NDArray[np.intp]:
    if names is None:
        return np.arange(adata.n_obs)
    if isinstance(names, str) or not len(names):
        message = f"{argument} is {names!r}; pass a list of names of samples"
        raise ValueError(message)
    found = adata.obs_names.get_indexer(pd.Index(names))
    if (found < 0).any():
        absent = [str(name) for name, at in zip(names, found, strict=True) if at < 0]
        message = f"adata has no samples {absent[:3]} ({argument}; {len(absent)} of {len(names)} are absent)"
        raise KeyError(message)
    return np.asarray(found, dtype=np.intp)


def _explain(
    given: ModelInput,
    adapter: Adapter,
    name: str,
    place: int | None,
    *,
    rows: NDArray[np.intp],
    compared: NDArray[np.intp],
    n_steps: int,
    rng: int,
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Attribute scores by the adapter and by its shuffled weights; a row per sample, and attributions (n, G)."""
    import torch

    from bulkformer_tl.train._adapter import restore
    from bulkformer_tl.train._attribute import Question, explain, shuffled
    from bulkformer_tl.train._cohort import Cohort

    values = _all_values(given)
    seen = ~np.isnan(values[compared])
    total = np.where(seen, values[compared], 0.0).sum(axis=0, dtype=np.float64)
    mean = np.divide(total, seen.sum(axis=0), out=np.zeros_like(total), where=seen.any(axis=0))
    external = {key: codes[rows, None] for key, codes in given.external.items()} or None
    cohort = Cohort(given.model, values[rows], pooling=adapter.config.pooling, external=external)
    way, heads = restore(adapter, cohort.backbone)
    question, start = Question(name, place), torch.from_numpy(mean.astype(np.float32))
    with Progress(2 * len(rows), "attribute") as progress:
        options: dict[str, Any] = {"baseline": start, "n_steps": n_steps, "progress": progress.update}
        found = explain(cohort, way, heads, question, **options)
        others = explain(cohort, *shuffled(way, heads, rng), question, chosen=found.chosen, **options)
    classes = adapter.facts["targets"][name]["classes"]
    table = pd.DataFrame(
        {
            "score": found.score,
            "gap": found.gap,
            "explained": [str(classes[code]) for code in found.chosen] if classes else [name] * len(rows),
            "randomised_correlation": [
                _rank_correlation(*three)
                for three in zip(found.values, others.values, ~np.isnan(values[rows]), strict=True)
            ],
        }
    )
    return table, found.values  # noqa: PD011  no data frame


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64], observed: NDArray[np.bool_]) -> float:
    """Correlate the ranks of absolute attributions of observed genes; 0 where one says nothing."""
    from scipy.stats import rankdata

    first, second = (rankdata(np.abs(part[observed])) for part in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _report(key: str, table: pd.DataFrame, correlation: float) -> None:
    logger.info(
        "%s: rank correlation with attributions of shuffled weights %.2f (mean of %d)", key, correlation, len(table)
    )
    if correlation > SUSPECT:
        message = (
            f"attributions correlate with those of shuffled weights (mean rank correlation {correlation:.2f}): they "
            "tell more of the expression of these samples than of what the encoder has learnt; do not read genes off "
            "them"
        )
        warnings.warn(message, UserWarning, stacklevel=3)
    missed = (table["gap"].abs() > GAP * table["score"].abs().clip(lower=1.0)).sum()
    if missed:
        logger.warning("%s: in %d samples the sum of attributions misses the score; raise n_steps", key, int(missed))
