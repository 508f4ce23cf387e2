"""In-silico perturbation: what a model makes of samples in which genes are changed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import PerturbKeys
from bulkformer_tl.tl._input import load_model, prepare
from bulkformer_tl.tl._perturb_change import Change
from bulkformer_tl.tl._perturb_input import Cases, read_cases, resolve_head
from bulkformer_tl.tl._perturb_passes import VectorReader
from bulkformer_tl.tl._perturb_ranks import refuse_for_ranks
from bulkformer_tl.tl._perturb_run import Found, Run
from bulkformer_tl.tl._perturb_sets import Perturbation, read_perturbations
from bulkformer_tl.tl._perturb_states import States
from bulkformer_tl.tl._perturb_tables import effect_table

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import Encoder
    from bulkformer_tl.tl._perturb_input import AnyReadout
    from bulkformer_tl.tl._perturb_sets import Genes

    Numbers = NDArray[np.float64]

#: Numbers that a table of genes by perturbations (and groups) may have.
MOST_CHANGES = 2**25


def perturb(
    adata: AnnData,
    genes: Genes = None,
    *,
    change: Literal["delete", "overexpress"] | Change = "delete",
    readout: AnyReadout = "sample",
    model: Encoder | str | Path = "bulkformer-mini",
    layer: str | None = None,
    identifiers: Identifiers | None = None,
    groupby: str | None = None,
    pooling: Literal["mean", "max", "median", "all", "cls"] | None = None,
    screen: int | None = None,
    n_null: int = 20,
    per_sample: bool = False,
    store: str | Path | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str = "perturb",
    copy: bool = False,
) -> AnnData | None:
    r"""Change genes in samples and read what a model makes of it.

    Expression of single genes, of combinations or of sets is changed, each by itself, and the model runs again on the
    changed sample. Other genes keep their values. What comes out is what the model learnt of genes that go together,
    which is no proof that one causes the other. Device and batch size are those of :attr:`bulkformer_tl.settings`; on
    the CPU results are equal bit for bit over how passes are put together.

    Parameters
    ----------
    adata
        Samples by genes, with ln(TPM+1) values (see :func:`bulkformer_tl.pp.log_tpm`), or the raw counts that a
        Geneformer ranks.
    genes
        A name, a list of names (each by itself), tuples of names in that list (combinations), a dict of named groups,
        or a GMT file (``.gmt``) of pathways. ``None`` takes each gene that ``adata`` has and the model knows. Names are
        those of ``var_names``, Ensembl ids or symbols.
    change
        ``"delete"``, ``"overexpress"``, or a :class:`bulkformer_tl.tl.Change`, such as
        ``Change("inhibit", factor=0.5)``, ``Change("activate", quantile=0.95)`` or ``Change("set", value=3.0)``. Of a
        Geneformer, as published, deletion takes a gene out of the list and overexpression puts it at the front, several
        in the order in which they are named; factors and quantiles change counts, which are ranked again.
    readout
        ``"sample"``: cosine distance between the sample vectors before and after; of a Geneformer V1, as published, the
        mean cosine distance of the vectors of the other genes. :class:`bulkformer_tl.tl.States`:
        samples of a start state are perturbed, and the cosine similarity with the mean vector of a goal is read, and of
        start and alternates the way away from them. A fitted head, or its key such as ``"classify_disease"`` or
        ``"survival"``: the change of its probabilities, log hazard, number, or of the response to each drug.
        ``"genes"`` and ``"expression"``: cosine distance of every other gene's vector, or change of its predicted
        ln(TPM+1).
    model
        A loaded BulkFormer or Geneformer, or what :func:`bulkformer_tl.models.load` takes: a name, a folder,
        ``"geneformer:<folder>"``.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``.
    identifiers
        What ``var_names`` are; see :func:`bulkformer_tl.tl.embed`.
    groupby
        Column of ``obs``: groups of samples are described one by one. ``None`` describes all together.
    pooling
        How gene vectors become the sample vector; ``None`` takes the model's published rule, and for a head that of the
        embedding it was fitted to. Named for a Geneformer V1, ``"sample"`` compares the pooled vectors.
    screen
        Estimate all perturbations to first order, slope times change, from one backward pass per sample and number
        that is read (32 for ``"sample"`` where its vector is not linear in the values), and run exact passes for so
        that come first; with 0 for none. ``None`` runs exact passes for all. The order of genes has no
        slope, so that there is no screen for a Geneformer.
    n_null
        Genes to compare each with, drawn among those that can be changed in at least half of these samples, are as much
        expressed in them and have as many neighbours in the model's gene graph (for combinations and sets as many such
        genes); they are perturbed in the same way. For a Geneformer, which has no graph, expression is what genes are
        ranked by. Where there are none, a warning says so. 0 leaves the comparison out.
    per_sample
        Also write the effect on each sample.
    store
        Folder in which finished passes are kept: the same call goes on where it stopped, and any number of processes
        that run it at the same time, on machines with a common folder, share the work. ``None`` keeps nothing.
    rng
        Draws genes of the null and directions of the screen, and starts the mixture.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.uns[key_added]["table"]`` : :class:`pandas.DataFrame`
        One row per perturbation, group and output, the largest effects first: ``perturbation``, ``kind`` (``"gene"``,
        ``"combination"`` or ``"set"``), ``n_genes``, ``group``, ``output``; number ``n`` of samples; mean ``effect``
        with Student's 95 % interval over samples ``low`` to ``high``. With a screen ``first_order``, its estimate.
        With a null its mean effect ``null``, the share ``auc`` of pairs of samples in which the perturbation exceeds
        the null, and the rank-sum test's ``p`` and ``fdr`` (Benjamini and Hochberg), two-sided where effects have a
        sign; ``NaN`` where no gene is as much expressed. From 20 perturbations on, ``impact``: how likely the effect
        belongs to the upper one of two components of a Gaussian mixture of log10 \|effect\|. For combinations
        ``expected``, the effect if the moves of their genes added up, ``synergy``, what goes beyond it, its interval,
        and ``synergy_p`` and ``synergy_fdr`` by the signed-rank test.
    ``adata.obsm[key_added]`` : :class:`numpy.ndarray` (shape ``(n_obs, columns)``, dtype ``float32``)
        With ``per_sample``: effects, in the order of ``adata.uns[key_added]["columns"]``; ``NaN`` without a pass.
    ``adata.varm[key_added]`` : :class:`numpy.ndarray` (shape ``(n_vars, columns)``, dtype ``float32``)
        With ``readout="genes"`` or ``"expression"``: mean shift or change of each gene, in the order of
        ``adata.uns[key_added]["gene_columns"]``; ``NaN`` for perturbed genes and those that the model does not know.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Model and checksum, layer, change, readout, groups, and how many passes were run.

    Raises
    ------
    KeyError
        If a gene, layer, column or head is not there.
    ValueError
        If a named gene is missing in a sample, 0 where the change leaves it 0, or behind the context of a Geneformer
        where the change leaves it there; if a model cannot be asked this; if a state or group has no sample;
        if goal and start are the same; if a head reads something else than this model's sample vector; or a slot holds
        something else.
    TypeError
        If genes or the readout are something else.
    FileExistsError
        If ``store`` holds something else.

    Notes
    -----
    The rank-sum test takes samples as replicates, as Geneformer's does; many samples make small effects significant, so
    that ``effect`` beside ``null`` says more than ``p``.

    References
    ----------
    Theodoris et al., Transfer learning enables predictions in network biology, Nature 2023.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.perturb(adata, ["ACTB", "GAPDH", ("ACTB", "GAPDH")], layer="log_tpm", n_null=5)
    >>> adata.uns["perturb"]["table"].shape[0]
    3
    """
    check_anndata(adata)
    keys, edited, random = PerturbKeys(key_added), Change.of(change), np.random.default_rng(rng)
    genewise = isinstance(readout, str) and readout in ("genes", "expression")
    check_slots(adata, key_added, [keys.samples] * per_sample + [keys.genes] * genewise)
    _check_numbers(screen, n_null, genewise=genewise)
    cases = read_cases(adata, readout, groupby)
    loaded = load_model(model)
    _check_encoding(loaded, edited, readout, screen)
    given = prepare(adata, model=loaded, layer=layer, identifiers=identifiers, min_coverage=0.2, device=None)
    perturbations = read_perturbations(adata, genes, given.match, given.model)
    what, options = resolve_head(adata, readout, given.model)
    run = Run.start(
        adata,
        given,
        cases=cases,
        change=edited,
        readout=what,
        perturbations=perturbations,
        options={"pooling": pooling, **options},
        named=genes is not None,
    )
    if genewise:
        _check_size(adata, cases, perturbations)
    found = run.effects(screen, n_null, random, None if store is None else Path(store))
    target = copied(adata) if copy else adata
    given_params = {"screen": -1 if screen is None else screen, "n_null": n_null, "groupby": groupby or ""}
    params = {**given.params, **given_params, "readout": _describe(readout), **_params(run, found)}
    tables: dict[str, Any] = {"table": _tables(run, found, random)}
    results: dict[str, Any] = {}
    if per_sample:
        results[keys.samples], tables["columns"] = _of_samples(adata, run, found)
    if genewise:
        results[keys.genes], tables["gene_columns"] = _of_genes(adata, run, found)
    write_results(target, key_added, results, params, tables)
    if n_null:
        _warn_alone(tables["table"])
    return target if copy else None


def _check_encoding(model: Any, change: Change, readout: AnyReadout, screen: int | None) -> None:
    if model.encoding == "ranks":
        refuse_for_ranks(model.name, change, readout, screen)
    elif model.encoding == "bins":
        message = (
            f"{model.name} reads bins, which no perturbation changes yet; pass a model of the BulkFormer generations, "
            "see bf.models.available(), or a Geneformer"
        )
        raise ValueError(message)


def _params(run: Run, found: Found) -> dict[str, Any]:
    return {
        **{f"change_{name}": value for name, value in run.editor.change.params().items()},
        "pooling": run.passes.request.pooling if isinstance(run.reader, VectorReader) else "",
        "n_samples": len(run.values),
        "n_exact": int(np.isfinite(found.shifts).any(axis=(0, 2)).sum()),
        "signed": run.reader.signed,
    }


def _check_numbers(screen: int | None, n_null: int, *, genewise: bool) -> None:
    for name, number in (("screen", screen), ("n_null", n_null)):
        if number is not None and number < 0:
            message = f"{name} is {number}; use 0 or more"
            raise ValueError(message)
    if genewise and screen is not None:
        message = (
            'a screen follows a number of the sample; with readout="genes" or "expression" pass screen=None, or screen '
            'with readout="sample" first'
        )
        raise ValueError(message)


def _check_size(adata: AnnData, cases: Cases, perturbations: list[Perturbation]) -> None:
    columns = len(perturbations) * len(cases.groups)
    if columns * adata.n_vars > MOST_CHANGES:
        message = (
            f"{len(perturbations):,} perturbations of {len(cases.groups)} groups say something of {adata.n_vars:,} "
            f"genes each; name at most {MOST_CHANGES // (adata.n_vars * len(cases.groups)):,} genes, or pass "
            "readout='sample'"
        )
        raise ValueError(message)


def _warn_alone(table: pd.DataFrame) -> None:
    """Say which perturbations nothing was found for to compare them with."""
    # without exact passes there is no such column
    done = table[table["n"] > 0]
    alone = done.loc[done.get("null", done["effect"]).isna(), "perturbation"].unique()
    if len(alone):
        message = (
            f"{len(alone)} of {done['perturbation'].nunique()} perturbations, such as {alone[0]!r}, have no null: no "
            "gene that can be changed in half of the samples is as much expressed. Their null, auc, p and fdr are NaN; "
            "perturb samples that express the same genes together, or pass n_null=0"
        )
        warnings.warn(message, UserWarning, stacklevel=3)


def _describe(readout: AnyReadout) -> str:
    if isinstance(readout, States):
        return f"{readout.column}: {readout.start} to {readout.goal}"
    return readout if isinstance(readout, str) else f"head of {readout.facts['task']}"


def _tables(run: Run, found: Found, rng: np.random.Generator) -> pd.DataFrame:
    tables = []
    for code, group in enumerate(run.cases.groups):
        rows = run.cases.codes == code
        for position, output in enumerate(run.reader.names):
            table = effect_table(
                run.perturbations,
                found.shifts[rows, :, position],
                found.expected[rows, :, position],
                None if found.estimates is None else found.estimates[rows, :, position],
                None if found.null is None else (found.null[rows, :, position], found.chosen),
                signed=run.reader.signed,
                rng=rng,
            )
            table.insert(3, "group", group)
            table.insert(4, "output", output)
            order = ["effect", *(["first_order"] if "first_order" in table else [])]
            tables.append(table.loc[table[order].abs().sort_values(order, ascending=False, kind="stable").index])
    return pd.concat(tables, ignore_index=True)


def _of_samples(adata: AnnData, run: Run, found: Found) -> tuple[NDArray[np.float32], pd.DataFrame]:
    flat = found.shifts.reshape(len(found.shifts), -1)
    effects = np.full((adata.n_obs, flat.shape[1]), np.nan, dtype=np.float32)
    effects[run.cases.rows] = flat
    names, outputs = [item.name for item in run.perturbations], run.reader.names
    columns = {"perturbation": np.repeat(names, len(outputs)), "output": outputs * len(names)}
    return effects, pd.DataFrame(columns)


def _of_genes(adata: AnnData, run: Run, found: Found) -> tuple[NDArray[np.float32], pd.DataFrame]:
    assert found.changes is not None  # noqa: S101  this readout has them
    groups, names = run.cases.groups, [item.name for item in run.perturbations]
    here = run.match.found
    changes = np.full((adata.n_vars, len(groups) * len(names)), np.nan, dtype=np.float32)
    changes[run.match.columns[here]] = found.changes.reshape(changes.shape[1], -1)[:, here].T
    return changes, pd.DataFrame({"group": np.repeat(groups, len(names)), "perturbation": names * len(groups)})
