"""Adaptation of an encoder to labels: heads and encoder trained together, stopped by samples that were left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import k_fold
from bulkformer_tl.metrics._check import as_labels
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._finetune_config import FinetuneConfig
from bulkformer_tl.train._targets import Target, check_stoppable, check_targets, check_trainable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from bulkformer_tl.models import BioFormer, BulkFormer, Geneformer
    from bulkformer_tl.train._adapter import Adapter

    Rows = NDArray[np.intp]


def finetune(
    model: BulkFormer | Geneformer | BioFormer,
    values: NDArray[np.floating],
    targets: Mapping[str, Target],
    *,
    config: FinetuneConfig | None = None,
    groups: ArrayLike | None = None,
    validation: ArrayLike | None = None,
    external: Mapping[str, Any] | None = None,
    rng: int = 0,
) -> Adapter:
    r"""Adapt an encoder to labels of samples or genes.

    First the heads are trained alone, on the vectors of the encoder as it is (Kumar et al. 2022, arXiv:2202.10054),
    then, unless ``config.method`` is ``"probe"``, heads and encoder together, by gradients through the network's own
    layers. After every epoch samples that were left out say how good the weights are; the best are kept, and training
    ends where none better come. With several targets the loss is the weighted sum

    .. math::

        \sum_t w_t L_t, \qquad L_t = \frac{1}{n_t} \sum_i -\ln p_{i, y_i}
        \quad\text{or}\quad \frac{1}{n_t} \sum_i \left(\frac{y_i - \hat y_i}{s}\right)^2
        \quad\text{or}\quad -\frac{1}{d_t} \ln \mathrm{PL}(\hat\eta)

    of cross-entropies, squared errors in training standard deviations s, and Cox' partial likelihood PL with d events
    in a batch, each over those samples (or genes) whose label is known.

    Parameters
    ----------
    model
        Encoder of any family; it is copied, never changed.
    values
        What it reads, in vocabulary order, (N, G), ``NaN`` where missing: ln(TPM+1), counts of a Geneformer, bins of a
        BioFormer.
    targets
        By name; see :class:`Target`.
    config
        What is trained and how; ``None`` takes ``FinetuneConfig()``.
    groups
        What must not stand on both sides of the inner validation, such as the patient, (N,).
    validation
        Which samples are left out to stop by, boolean, (N,); ``None`` draws whole groups, ``config.validation`` of the
        samples.
    external
        Codes of external tokens, of models that have such.
    rng
        Seed of validation, low-rank additions, order and dropout.

    Returns
    -------
    Heads and changed weights of the best epoch.

    Raises
    ------
    ValueError
        If targets do not fit the samples, training samples show one class or no event, those that are left out no
        label or no event, groups stand on both sides of ``validation`` or are too few to leave some out, the model
        cannot read the values or be trained so, or no validation loss was finite.
    ImportError
        If peft is not installed and ``method="lora"``.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> model = bf.models.load("bulkformer-mini")  # doctest: +SKIP
    >>> targets = {"disease": bf.train.Target.of_classes(labels)}  # doctest: +SKIP
    >>> adapter = bf.train.finetune(model, values, targets, groups=patients)  # doctest: +SKIP
    >>> adapter.save("disease_adapter")  # doctest: +SKIP
    """
    from bulkformer_tl.train._cohort import Cohort
    from bulkformer_tl.train._search import fit_best, passes

    settled = config or FinetuneConfig()
    check_targets(targets, len(values), len(model.vocabulary))
    everything = np.arange(len(values))
    members = everything if groups is None else as_labels(groups, "groups", n=len(values))[0]
    if validation is None:
        train, held = split_rows(everything, targets, members, settled, rng)
    else:
        train, held = _given(validation, targets, members)
    cohort = Cohort(model, values, pooling=settled.pooling, genes=labelled_genes(targets), external=external)
    with Progress(passes(settled) * len(train), "finetune") as progress:
        return fit_best(cohort, targets, train, held, config=settled, rng=rng, progress=progress.update)


def labelled_genes(targets: Mapping[str, Target]) -> Rows | None:
    """Return the positions of genes that some target has a label of; ``None`` where no target is of genes."""
    known = [target.known for target in targets.values() if target.kind == "genes"]
    return np.flatnonzero(np.any(known, axis=0)) if known else None


def split_rows(
    rows: Rows, targets: Mapping[str, Target], members: NDArray[np.intp], config: FinetuneConfig, rng: int
) -> tuple[Rows, Rows]:
    """Leave whole groups out to stop by, so that every class and an event stay in what is trained on.

    Of every target some label, and of an outcome an event, is among those that are left out.

    Raises
    ------
    ValueError
        If groups are too few, or classes, labels or events stand in one group only.
    """
    found = len(np.unique(members[rows]))
    refuse_unless(
        found >= 2,
        f"{len(rows)} training samples are of {found} group, and the inner validation needs another one to stop by; "
        "pass finer groups, or more samples",
    )
    n_splits = min(max(2, round(1 / config.validation)), found)
    labels = _strata(rows, targets)
    try:
        splits = k_fold(len(rows), n_splits=n_splits, labels=labels, groups=members[rows], rng=rng)
    except ValueError:
        splits = k_fold(len(rows), n_splits=n_splits, groups=members[rows], rng=rng)
    refusal = None
    for split in splits:
        try:
            for name, target in _of_samples(targets):
                check_trainable(name, target.only(rows[split.train]))
                check_stoppable(name, target.only(rows[split.test]))
        except ValueError as error:
            refusal = refusal or error
            continue
        return rows[split.train], rows[split.test]
    message = f"whichever groups are left out to stop by, too little is left to train on or to stop by: {refusal}"
    raise ValueError(message)


def _of_samples(targets: Mapping[str, Target]) -> list[tuple[str, Target]]:
    return [(name, target) for name, target in targets.items() if target.kind != "genes"]


def _strata(rows: Rows, targets: Mapping[str, Target]) -> NDArray[np.intp] | None:
    """Return codes to spread evenly: classes of the first target that has such, or events; unknown is a class."""
    for target in targets.values():
        if target.kind in {"class", "survival"}:
            values = target.values[rows] if target.kind == "class" else target.values[rows, 1]
            codes: NDArray[np.intp] = np.nan_to_num(values, nan=-1).astype(np.intp)
            return codes if len(np.unique(codes)) > 1 else None
    return None


def _given(validation: ArrayLike, targets: Mapping[str, Target], members: NDArray[np.intp]) -> tuple[Rows, Rows]:
    left, n = np.asarray(validation), len(members)
    refuse_unless(
        left.dtype == bool and left.shape == (n,) and bool(left.any()) and not bool(left.all()),
        f"validation must be boolean with {n} entries, some True and some False; found {left.dtype} of {left.shape}",
    )
    shared = np.intersect1d(members[left], members[~left])
    refuse_unless(
        not len(shared),
        f"{len(shared)} groups have samples on both sides of validation, through which labels leak; keep each group on "
        "one side, or pass validation=None to have it drawn so",
    )
    for name, target in _of_samples(targets):
        check_trainable(name, target.only(~left))
        check_stoppable(name, target.only(left))
    return np.flatnonzero(~left), np.flatnonzero(left)
