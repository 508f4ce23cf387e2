"""Adapt an encoder to labels, in place: out-of-fold predictions, and scores beside the frozen encoder and baselines."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._kept_files import as_entry
from bulkformer_tl._keys import FinetuneKeys
from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import Protocol
from bulkformer_tl.tl._finetune_genes import described_genes, judge_frozen_genes, judge_genes
from bulkformer_tl.tl._finetune_judge import Said, judge_outcome, judge_samples, shared_plan, temperature
from bulkformer_tl.tl._finetune_targets import Asked, read_groups, read_targets
from bulkformer_tl.tl._input import ModelInput, prepare
from bulkformer_tl.tl._judge import MAIN, report_score
from bulkformer_tl.tl._pretrain_first import pretrain_first
from bulkformer_tl.tl._samples import all_expression
from bulkformer_tl.train import Adapter, FinetuneConfig
from bulkformer_tl.train._finetune import labelled_genes, split_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import BioFormer, BulkFormer, Encoder, Geneformer
    from bulkformer_tl.tl._judge import Verdict
    from bulkformer_tl.tl._probe import Plan
    from bulkformer_tl.train import PretrainConfig
    from bulkformer_tl.train._cohort import Cohort

    Rows = NDArray[np.intp]

logger = logging.getLogger(__name__)


def finetune(
    adata: AnnData,
    targets: Mapping[str, str | tuple[str, ...]],
    *,
    model: BulkFormer | Geneformer | BioFormer | str | Path = "bulkformer-mini",
    layer: str | None = None,
    baseline_layer: str | None = None,
    groups: str | None = None,
    method: Literal["probe", "freeze", "lora", "full"] | None = None,
    config: FinetuneConfig | None = None,
    protocol: Protocol | None = None,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    output: str | Path | None = None,
    pretrain: PretrainConfig | None = None,
    key_added: str = "finetune",
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Adapt an encoder to labels of samples or genes, and compare it with itself as it was and with simple baselines.

    For every fold a copy of the encoder is adapted to the other samples (see :func:`bulkformer_tl.train.finetune`),
    stopped by whole groups of these, and predicts the fold. All targets share the encoder and the folds. Beside it in
    the table stand a linear head on the vectors of the frozen encoder and the baselines of
    :func:`bulkformer_tl.tl.classify`, :func:`bulkformer_tl.tl.regress` or :func:`bulkformer_tl.tl.survival`, fitted to
    the same samples. At last the encoder is adapted to all labelled samples; that is what is kept, and what predicts
    samples without any label.

    Parameters
    ----------
    adata
        Samples by genes, with the values that the model reads.
    targets
        By name: ``"class"`` or ``"regression"`` for the column of ``obs`` of that name, ``("survival", time, event)``
        for an outcome in two columns of ``obs``, ``"genes"`` for the classes in the column of ``var`` of that name, or
        ``("genes", family)`` with a column of ``var`` that says which genes stay in one fold. What is missing is no
        part of the loss.
    model
        A loaded model, or what :func:`bulkformer_tl.models.load` takes. It is copied, never changed.
    layer
        Values for the model; ``None`` reads ``X``.
    baseline_layer
        ln(TPM+1) for baselines and the search for near-duplicates; ``None`` takes ``layer`` where the model reads
        ln(TPM+1), and leaves them out where it reads counts.
    groups
        Column of ``obs`` that names what must stay together, such as the patient.
    method
        What is trained beside the heads: nothing (``"probe"``), the last layers (``"freeze"``), low-rank additions
        (``"lora"``) or everything (``"full"``); ``None`` takes that of ``config``, at first ``"lora"``.
    config
        How it is trained; ``None`` takes ``bf.train.FinetuneConfig()``.
    protocol
        Splits, baselines, bootstrap and seed; ``None`` takes ``bf.metrics.Protocol()``.
    identifiers
        As of :func:`bulkformer_tl.tl.embed`.
    min_coverage
        As of :func:`bulkformer_tl.tl.embed`.
    output
        Folder for the adapter, in place of ``adata.uns``; use it with ``"freeze"`` and ``"full"``, which keep whole
        weights.
    pretrain
        Train the encoder further on hidden genes of these samples before any label is read, as
        :func:`bulkformer_tl.train.pretrain` does with ``start=``; its family has to be the model's. Whole groups are
        left out to stop by, so ``groups`` has to be given, and so has ``output``: the encoder is kept in the folder
        of the same name with ``_encoder`` behind it, and predicts new samples (``bf.tl.predict(..., model=)``). It has
        then seen the expression of the samples of every fold, though not their labels. The frozen encoder in the
        table is the one as it was before.
    key_added
        Name of the result.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields, for each target:

    ``adata.obs[key_added + "_<name>_pred"]`` : :class:`pandas.Series`
        Out-of-fold class or number.
    ``adata.obsm[key_added + "_<name>_proba"]`` : :class:`numpy.ndarray` (shape ``(n_obs, K)``, dtype ``float64``)
        Probabilities of classes, calibrated by the samples that training was stopped by.
    ``adata.obs[key_added + "_<name>_risk"]`` : :class:`pandas.Series` (dtype ``float64``)
        Out-of-fold log hazard.
    ``adata.var[key_added + "_<name>_pred"]``, ``adata.varm[key_added + "_<name>_proba"]``
        Out-of-fold classes and probabilities of labelled genes, from the test samples of their fold.
    ``adata.uns[key_added]["scores"]``, ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        As of :func:`bulkformer_tl.tl.classify` and :func:`bulkformer_tl.tl.survival`, with the column ``target``.
    ``adata.uns[key_added]["training"]`` : :class:`pandas.DataFrame`
        Of each fold and of the adapter that is kept: samples, the epoch whose weights were kept, its validation loss,
        and whether training diverged.
    ``adata.uns[key_added]["classes"]`` : :class:`dict`
        Classes by name of the target, in the order of probabilities.
    ``adata.uns[key_added]["adapter"]`` : :class:`dict`
        The adapter, unless ``output`` was given; ``bf.tl.fitted_head(adata, key_added)`` returns it.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and how many weights were trained.

    Raises
    ------
    ValueError
        If a target is constant, shows no event, or is of one class in a fold; groups are missing or too few; the values
        are not what the model reads; a slot holds something else; or ``pretrain`` comes without ``groups`` or
        ``output``, or cannot train such a model.
    FileExistsError
        If ``output``, or the folder of the encoder, holds something else.
    KeyError
        If a column or layer is not there.
    TypeError
        If numbers are asked for and the column holds something else.
    ImportError
        If peft is not installed and the method is ``"lora"``, or Lightning and ``pretrain`` is given.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.finetune(adata, {"tissue": "class"}, layer="log_tpm", groups="donor")  # doctest: +SKIP
    >>> bf.tl.fitted_head(adata, "finetune").save("tissue_adapter")  # doctest: +SKIP
    """
    check_anndata(adata)
    keys, protocol = FinetuneKeys(key_added), protocol or Protocol()
    settled = config or FinetuneConfig()
    settled = settled if method is None else replace(settled, method=method)
    read: dict[str, Any] = {"layer": layer, "identifiers": identifiers, "min_coverage": min_coverage, "device": device}
    given = before = prepare(adata, model=model, **read)
    asked = read_targets(adata, targets, given, groups=groups, protocol=protocol)
    check_slots(adata, key_added, [slot for one in asked for slot in keys.slots(one.name, one.kind)])
    if output is not None:
        Adapter.check_place(output)
    if pretrain is not None:
        where: dict[str, Any] = {"layer": layer, "groups": groups, "identifiers": identifiers, "device": device}
        own = pretrain_first(adata, before.model, pretrain, output=output, **where)
        given = prepare(adata, model=own, **read)
    expression = given.model.input_unit == "log_tpm" or baseline_layer is not None
    own_layer = layer if baseline_layer is None else baseline_layer
    options: dict[str, Any] = {"groups": groups, "layer": own_layer, "expression": expression}
    work = _Work(adata, given, asked, settled, protocol, before=before.model, **options)
    results, tables, params = work.run(keys)
    adapter = work.adapter
    extra: dict[str, Any] = dict(tables)
    if output is None:
        extra["adapter"] = as_entry(adapter)
    else:
        adapter.save(output)
    target = copied(adata) if copy else adata
    write_results(target, key_added, results, {**params, "groups": groups or "", "layer": layer or "X"}, extra)
    return target if copy else None


class _Work:
    """One call: cohort, folds, adapters, tables."""

    adapter: Adapter

    def __init__(
        self,
        adata: AnnData,
        given: ModelInput,
        asked: list[Asked],
        config: FinetuneConfig,
        protocol: Protocol,
        *,
        before: Encoder,
        groups: str | None,
        layer: str | None,
        expression: bool,
    ) -> None:
        self.adata, self.given, self.asked, self.config, self.protocol = adata, given, asked, config, protocol
        self.layer = layer
        self.names = f"{given.model.name} ({config.method})", f"{before.name} (frozen)"
        self.targets = {one.name: one.target for one in asked}
        self.of_genes = [one for one in asked if one.kind == "genes"]
        if self.of_genes and not expression:
            message = (
                f"{given.model.name} reads counts, and baselines of genes read ln(TPM+1); pass baseline_layer=, as "
                "bf.pp.log_tpm makes it"
            )
            raise ValueError(message)
        of_samples = [one.labelled for one in asked if one.kind != "genes"]
        union = np.any(of_samples, axis=0) if of_samples else np.ones(adata.n_obs, dtype=bool)
        codes = None if groups is None else read_groups(adata, groups, union)
        genes = [str(name) for name in adata.var_names]
        values = all_expression([adata], layer, genes) if expression else None
        read = _all_values(given)
        self.cohort = self._read(given.model, read)
        self.before = self.cohort if before is given.model else self._read(before, read)
        frozen = self.before.frozen[0].numpy()
        self.plan: Plan = shared_plan(asked, frozen, values, codes, genes=genes, protocol=protocol)
        self.frozen_genes = {one.name: self._judge_frozen(one) for one in self.of_genes}

    def _read(self, model: Encoder, values: NDArray[np.float32]) -> Cohort:
        from bulkformer_tl.train._cohort import Cohort

        external = {name: code[:, None] for name, code in self.given.external.items()} or None
        genes = labelled_genes(self.targets)
        return Cohort(model, values, pooling=self.config.pooling, genes=genes, external=external)

    def run(self, keys: FinetuneKeys) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Adapt in every fold and to all samples; return what is written."""
        said = self._adapt()
        results: dict[str, Any] = {}
        scores, differences, baselines = [], [], []
        for one in self.asked:
            predicted, own_scores, own_differences, names = self._judge(one, said)
            results |= self._results(keys, one, predicted)
            scores.append(own_scores.assign(target=one.name))
            differences.append(own_differences.assign(target=one.name))
            baselines += [name for name in names if name not in baselines]
            metric = MAIN["classification"] if one.target.classes else MAIN["regression"]
            metric = str(own_scores["metric"].iloc[0]) if one.kind == "survival" else metric
            report_score(f"{keys.key}, {one.name}", self.names[0], metric, own_scores, own_differences)
        tables: dict[str, Any] = {
            "scores": _first(scores),
            "differences": _first(differences),
            "training": self._training,
        }
        tables["classes"] = {one.name: one.classes for one in self.asked if len(one.classes)}
        params = {
            **{name: value for name, value in self.given.params.items() if name != "layer"},
            "task": "finetune",
            "method": self.config.method,
            "config": {n: v for n, v in self.config.to_dict().items() if v != {}},
            "targets": {one.name: [one.kind, *one.columns] for one in self.asked},
            "baselines": baselines,
            "protocol": self.protocol.params(),
            "folds": len(self.plan.scored),
            "n": int(self.plan.samples.labelled.sum()),
            "n_trained_weights": self.adapter.facts["n_trained"],
            "adapter_bytes": self.adapter.n_bytes,
        }
        return results, tables, params

    def _adapt(self) -> list[Said]:
        """Adapt the encoder without each fold, and to all samples."""
        from bulkformer_tl.train._adapter import restore
        from bulkformer_tl.train._search import fit_best, passes

        splits = [*self.plan.scored, self.plan.final]
        members = np.arange(len(self.cohort)) if self.plan.groups is None else self.plan.groups
        rng, config, said, rows = self.protocol.rng, self.config, [], []
        inner = [split_rows(s.train, self.targets, members, config, rng + i) for i, s in enumerate(splits)]
        with Progress(passes(config) * sum(len(train) for train, _ in inner), "finetune") as progress:
            for position, (split, (train, held)) in enumerate(zip(splits, inner, strict=True)):
                last = position == len(self.plan.scored)
                targets = self.targets if last else self._without_fold(position)
                adapter = fit_best(
                    self.cohort, targets, train, held, config=config, rng=rng + position, progress=progress.update
                )
                way, heads = restore(adapter, self.cohort.backbone)
                inside = self.cohort.predict(way, heads, held)
                outside = self.cohort.predict(way, heads, split.test) if len(split.test) else _none(inside)
                said.append(Said(train, held, outside, inside))
                best = {name: adapter.facts["best"][name] for name in ("stage", "epoch", "loss")}
                rows.append({"fold": split.name if not last else "all", "samples": len(train), **best})
                rows[-1]["diverged"] = adapter.facts["diverged"]
        warm = {one.name: temperature(one, said[-1]) for one in self.asked if one.kind == "class"}
        self.adapter = adapter.calibrated(warm)
        self._training = pd.DataFrame(rows)
        return said

    def _without_fold(self, position: int) -> dict[str, Any]:
        """Return the targets, those of genes without the labels of the fold's genes."""
        found = dict(self.targets)
        for one in self.of_genes:
            split = self.frozen_genes[one.name].plan.scored[position]
            found[one.name] = one.target.only(self._described(one)[split.train])
        return found

    def _described(self, one: Asked) -> Rows:
        return described_genes(self._vectors(one), one)

    def _vectors(self, one: Asked) -> NDArray[np.float32]:
        """Return the frozen vectors of labelled genes, the mean over samples, (k, D)."""
        vectors: Any = self.before.frozen[1]
        mine = np.isin(labelled_genes(self.targets), np.flatnonzero(one.labelled))  # type: ignore[arg-type]
        mean: NDArray[np.float32] = vectors[:, mine].nanmean(dim=0).numpy()
        return mean

    def _judge_frozen(self, one: Asked) -> Verdict:
        protocol = replace(self.protocol, scheme="k_fold", n_splits=len(self.plan.scored))
        return judge_frozen_genes(
            self.adata, one, self.given, self._vectors(one), frozen=self.names[1], layer=self.layer, protocol=protocol
        )

    def _judge(self, one: Asked, said: list[Said]) -> Any:
        if one.kind == "genes":
            verdict = self.frozen_genes[one.name]
            order = labelled_genes(self.targets)
            places = [np.searchsorted(order, self._described(one)[s.test]) for s in verdict.plan.scored]  # type: ignore[arg-type]
            return judge_genes(verdict, self.names[0], places, said, one.name)
        judge = judge_outcome if one.kind == "survival" else judge_samples
        return judge(self.plan, one, self.names, said)

    def _results(self, keys: FinetuneKeys, one: Asked, predicted: NDArray[np.float64]) -> dict[str, Any]:
        if one.kind == "genes":
            shares = np.full((self.adata.n_vars, len(one.classes)), np.nan)
            shares[self.given.match.columns[self._described(one)]] = predicted
            predicted = shares
        written = [chosen(predicted, one.classes), predicted] if len(one.classes) else [predicted]
        return dict(zip(keys.slots(one.name, one.kind), written, strict=True))


def chosen(shares: NDArray[np.float64], classes: Any) -> pd.Categorical:
    """Return the most probable class, missing where there are no probabilities."""
    known = ~np.isnan(shares).any(axis=1)
    codes = np.where(known, np.nan_to_num(shares).argmax(axis=1), -1)
    return pd.Categorical.from_codes(codes, categories=pd.Index(classes))


def _all_values(given: ModelInput) -> NDArray[np.float32]:
    """Return what the model reads of all samples, (N, G)."""
    return np.concatenate([values for _, values in given.batches("read", None)])


def _first(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join tables, with the column ``target`` first."""
    table = pd.concat(tables, ignore_index=True)
    return table[["target", *(name for name in table.columns if name != "target")]]


def _none(outputs: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {name: values[:0] for name, values in outputs.items()}
