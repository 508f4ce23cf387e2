"""The samples of a task as arrays, checked before any work: labels, representation, expression, covariates, groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, get_matrix, get_params, row_blocks
from bulkformer_tl._keys import LOG_TPM
from bulkformer_tl.encodings import find_fault
from bulkformer_tl.metrics._check import as_labels, as_numbers, refuse_one_class, to_float
from bulkformer_tl.tl._columns import column, covariate_table
from bulkformer_tl.tl._matrix_target import read_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

Task = Literal["classification", "regression"]

#: What a representation is called that is expression itself.
EXPRESSION = "expression"


class Block(NamedTuple):
    """Columns of a fused representation that come from one modality.

    Parameters
    ----------
    name
        What it is called in tables.
    columns
        Which ones.
    scale
        How they are scaled, as of :func:`bulkformer_tl.metrics.probe`.
    """

    name: str
    columns: slice
    scale: Literal["common", "each"]


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a task; those of a reference come first.

    Parameters
    ----------
    target
        Class codes, or numbers, shape (N,) or (N, P); -1 or ``NaN`` where the label is not known.
    classes
        Sorted labels that the codes stand for; empty in regression.
    labelled
        Whether the label is known, shape (N,).
    representation
        What is judged, shape (N, D).
    values
        ln(TPM+1), shape (N, G), or ``None`` if nothing reads it.
    covariates
        N rows, or ``None``.
    groups
        What is kept together, shape (N,), or ``None``.
    n_reference
        Samples of the reference.
    genes
        Names of the columns of ``values``.
    blocks
        Modalities that the columns of a fused representation stand for, in their order; empty for any other.
    spread
        Codes that folds spread evenly where there are no classes, shape (N,), or ``None``.
    """

    target: NDArray[Any]
    classes: NDArray[Any]
    labelled: NDArray[np.bool_]
    representation: NDArray[np.float32]
    values: NDArray[np.float32] | None
    covariates: pd.DataFrame | None
    groups: NDArray[np.intp] | None
    n_reference: int
    genes: list[str]
    blocks: tuple[Block, ...] = ()
    spread: NDArray[np.intp] | None = None

    @property
    def task(self) -> Task:
        """What kind of label it is."""
        return "classification" if len(self.classes) else "regression"

    @property
    def labels(self) -> NDArray[np.intp] | None:
        """Codes that folds spread evenly: those of classes, or what there is in their place."""
        return self.target if self.task == "classification" else self.spread


def read_samples(
    adata: AnnData,
    label: str,
    *,
    task: Task | Literal["matrix"],
    use_rep: str | None,
    layer: str | None,
    groups: str | None,
    covariates: Sequence[str] | None,
    reference: AnnData | None,
    expression: bool,
) -> Samples:
    """Read what a task needs from one AnnData, or from a reference and the AnnData to predict.

    Parameters
    ----------
    adata
        Samples to predict.
    label
        Column of ``obs``; key of ``obsm`` for a matrix.
    task
        ``"classification"``, ``"regression"`` or, of several numbers at once, ``"matrix"``.
    use_rep
        Key of ``obsm``; ``None`` takes expression, and ``values`` then are the representation.
    layer
        Where expression is; ``None`` reads ``X``.
    groups
        Column of ``obs``.
    covariates
        Columns of ``obs``.
    reference
        Samples to train on in place of those of ``adata``.
    expression
        Whether a baseline or the search for near-duplicates reads expression.

    Raises
    ------
    KeyError
        If a column, layer or representation is not there; the message lists those that are.
    ValueError
        If labels are constant, values are no ln(TPM+1), or the reference does not fit.
    TypeError
        If numbers are needed and the column holds something else.
    """
    parts = [adata] if reference is None else [reference, adata]
    for part in parts:
        check_anndata(part)
    n_reference = 0 if reference is None else reference.n_obs
    if task == "matrix":
        target, classes, labelled = read_matrix(parts, label)
    else:
        target, classes, labelled = _read_target(parts, label, task)
    representation, values, genes = read_representation(parts, use_rep, layer, expression=expression)
    return Samples(
        target,
        classes,
        labelled,
        representation,
        values,
        None
        if covariates is None
        else pd.concat([covariate_table(part, covariates) for part in parts], ignore_index=True),
        None if groups is None else _read_groups(parts, groups, labelled),
        n_reference,
        genes,
        fused_blocks(adata, use_rep),
    )


def read_representation(
    parts: list[AnnData], use_rep: str | None, layer: str | None, *, expression: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, list[str]]:
    """Return what is judged (N, D), ln(TPM+1) where it is read (N, G), and the genes that all parts have."""
    genes = _common_genes(parts)
    values = all_expression(parts, layer, genes) if use_rep is None or expression else None
    if use_rep is None:
        return all_expression(parts, layer, genes) if values is None else values, values, genes
    _refuse_other_model(parts, use_rep)
    return _stack([get_representation(part, use_rep) for part in parts], use_rep), values, genes


def _read_target(parts: list[AnnData], label: str, task: Task) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Return targets, classes and where they are known; labels of ``adata`` need not be there beside a reference."""
    columns = [column(parts[0], label, "the label")]
    unknown = [pd.Series([None] * part.n_obs, dtype=object) for part in parts]
    columns += [part.obs.get(label, blank) for part, blank in zip(parts[1:], unknown[1:], strict=True)]
    # files keep a missing text as an empty one
    known = [~(pd.isna(found) | (found.astype(object) == "")).to_numpy(dtype=bool) for found in columns]
    name = f"adata.obs[{label!r}]"
    if not known[0].any():
        message = f"{name} holds no value; nothing can be learnt from it"
        raise ValueError(message)
    given = [np.asarray(found[keep].tolist(), dtype=_dtype(found)) for found, keep in zip(columns, known, strict=True)]
    read = _read_numbers if task == "regression" else _read_classes
    coded, classes = read(given, name)
    everywhere = np.concatenate(known)
    blank = np.nan if task == "regression" else -1
    target = np.full(len(everywhere), blank, dtype=np.float64 if task == "regression" else np.intp)
    target[everywhere] = coded
    return target, classes, everywhere


def _dtype(found: pd.Series[Any]) -> Any:
    """Return object for anything but plain numbers, so that types are not mixed up unnoticed."""
    kind = getattr(found.dtype, "kind", "O")
    return found.dtype if kind in "biuf" and isinstance(found.dtype, np.dtype) else object


def _read_numbers(given: list[NDArray[Any]], name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    text = next((value for part in given for value in part.tolist() if isinstance(value, str | bool)), None)
    if text is not None:
        message = (
            f"{name} must be numbers and holds {text!r}; bf.tl.classify takes categories, and .astype(float) makes "
            "numbers of digits"
        )
        raise TypeError(message)
    numbers = [as_numbers(part, name) if len(part) else np.array([]) for part in given]
    if np.ptp(numbers[0]) == 0:
        message = f"{name} is constant ({numbers[0][0]:.6g}); there is nothing to predict"
        raise ValueError(message)
    return np.concatenate(numbers), np.array([])


def _read_classes(given: list[NDArray[Any]], name: str) -> tuple[NDArray[np.intp], NDArray[Any]]:
    first = given[0]
    if first.dtype.kind == "f" and (first != np.floor(first)).any():
        message = f"{name} holds numbers such as {first[first != np.floor(first)][0]:.6g}; bf.tl.regress predicts them"
        raise TypeError(message)
    codes, classes = as_labels(first, name)
    refuse_one_class(classes, name)
    plain = classes.tolist()
    if not isinstance(plain[0], str):
        # of objects that are numbers, what a file can hold
        classes = np.array(plain)
        if classes.dtype.kind not in "biuf":
            message = f"{name} holds {type(plain[0]).__name__}; classes are text, numbers or booleans, see .astype(str)"
            raise TypeError(message)
    rest = pd.Index(classes).get_indexer(pd.Index(given[1])) if len(given) > 1 and len(given[1]) else np.array([], int)
    if (rest < 0).any():
        unknown = sorted({str(value) for value in given[1][rest < 0]})
        message = (
            f"{name} holds {unknown}, which the reference does not; it knows {classes.tolist()}. Rename these labels, "
            "or set them to NaN so that the samples are predicted and not scored"
        )
        raise ValueError(message)
    return np.concatenate([codes, rest]).astype(np.intp), classes


def get_representation(adata: AnnData, use_rep: str) -> NDArray[np.float32]:
    """Return a representation as a finite matrix, (N, D)."""
    if use_rep not in adata.obsm:
        message = (
            f"adata.obsm has no {use_rep!r}; it holds {sorted(adata.obsm)}. Call bf.tl.embed(adata) first, or pass "
            "use_rep=None for expression itself"
        )
        raise KeyError(message)
    given: Any = adata.obsm[use_rep]
    dense = given.toarray() if hasattr(given, "toarray") else np.asarray(given)
    found = to_float(dense, f"adata.obsm[{use_rep!r}]").astype(np.float32)
    # what modalities lack is filled in inside the fold
    allowed = ~np.isinf(found) if fused_blocks(adata, use_rep) else np.isfinite(found)
    if found.ndim != 2 or not allowed.all():
        bad = int((~np.isfinite(found)).sum())
        message = f"adata.obsm[{use_rep!r}] has the shape {found.shape} with {bad} values that are NaN or infinite"
        raise ValueError(message)
    return found


def _stack(matrices: list[NDArray[np.float32]], use_rep: str) -> NDArray[np.float32]:
    widths = [matrix.shape[1] for matrix in matrices]
    if len(set(widths)) > 1:
        message = (
            f"obsm[{use_rep!r}] has {widths[0]} columns in the reference and {widths[1]} in adata; embed both alike"
        )
        raise ValueError(message)
    return np.concatenate(matrices)


def embedding_params(adata: AnnData, use_rep: str | None) -> dict[str, Any]:
    """Return what :func:`bulkformer_tl.tl.embed` noted of a representation; empty if it did not make it."""
    return {} if use_rep is None else get_params(adata, use_rep.removeprefix("X_"))


def fused_blocks(adata: AnnData, use_rep: str | None) -> tuple[Block, ...]:
    """Return the modalities of a representation that :func:`bulkformer_tl.tl.fuse` made; empty if it did not.

    Raises
    ------
    ValueError
        If it has other columns by now.
    """
    made = embedding_params(adata, use_rep)
    if "blocks" not in made:
        return ()
    ends = np.cumsum([int(width) for width in made["widths"]])
    width = adata.obsm[str(use_rep)].shape[1]
    if ends[-1] != width:
        message = f"adata.obsm[{use_rep!r}] has {width} columns and its note in uns {ends[-1]}; call bf.tl.fuse again"
        raise ValueError(message)
    names, scales = map(str, made["blocks"]), map(str, made["scales"])
    columns = [slice(int(start), int(end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return tuple(Block(*found) for found in zip(names, columns, scales, strict=True))  # type: ignore[arg-type]


def _refuse_other_model(parts: list[AnnData], use_rep: str) -> None:
    sums = {found["checksum"] for part in parts if "checksum" in (found := embedding_params(part, use_rep))}
    if len(sums) > 1:
        message = f"obsm[{use_rep!r}] of adata and of the reference come from different models; embed both with one"
        raise ValueError(message)
    fused = [fused_blocks(part, use_rep) for part in parts]
    if fused[0] != fused[-1]:
        names = [[block.name for block in blocks] for blocks in fused]
        message = (
            f"obsm[{use_rep!r}] of the reference holds {names[0]} and that of adata {names[-1]}; call bf.tl.fuse on "
            "both alike"
        )
        raise ValueError(message)


def _common_genes(parts: list[AnnData]) -> list[str]:
    names = [str(name) for name in parts[0].var_names]
    if len(parts) > 1:
        if not all(part.var_names.is_unique for part in parts):
            message = "var_names are not unique in adata or the reference; call bf.pp.merge_duplicates on it first"
            raise ValueError(message)
        here = set(map(str, parts[1].var_names))
        names = [name for name in names if name in here]
        if not names:
            message = "adata and the reference share no gene; give their var_names the same kind of identifiers"
            raise ValueError(message)
    return names


def all_expression(parts: list[AnnData], layer: str | None, genes: list[str]) -> NDArray[np.float32]:
    """Return ln(TPM+1) of all samples and these genes, (N, G), or say why it cannot be that."""
    return np.concatenate([_expression(part, layer, genes) for part in parts])


def _expression(adata: AnnData, layer: str | None, genes: list[str]) -> NDArray[np.float32]:
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    hint = f" (or pass layer={LOG_TPM!r})" if layer != LOG_TPM and LOG_TPM in adata.layers else ""
    matrix = get_matrix(adata, layer)
    same = len(genes) == adata.n_vars and list(map(str, adata.var_names)) == genes
    columns: Any = slice(None) if same else adata.var_names.get_indexer(pd.Index(genes))
    blocks, whole = [], True
    for rows, block in row_blocks(matrix):
        fault, block_whole = find_fault(block)
        whole &= block_whole
        if fault is not None:
            name = adata.obs_names[rows.start + fault[0]]
            message = f"{where} is not ln(TPM+1), which expression has to be: sample {name!r} {fault[1]}{hint}"
            raise ValueError(message)
        blocks.append(block[:, columns])
    if whole:
        message = f"{where} holds whole numbers only, as counts do; call bf.pp.log_tpm(adata) first{hint}"
        raise ValueError(message)
    return np.concatenate(blocks)


def _read_groups(parts: list[AnnData], groups: str, labelled: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Code the groups of labelled samples; each sample without a label and a group is one of its own."""
    found = pd.concat([column(part, groups, "groups").astype(object) for part in parts], ignore_index=True)
    codes = np.full(len(found), -1, dtype=np.intp)
    missing = pd.isna(found).to_numpy()
    if (missing & labelled).any():
        message = (
            f"adata.obs[{groups!r}] (groups) is missing in {int((missing & labelled).sum())} labelled samples, the "
            f"first at position {int(np.flatnonzero(missing & labelled)[0])}; fill it in, or set their label to NaN"
        )
        raise ValueError(message)
    codes[~missing] = as_labels(found[~missing].to_numpy(), f"adata.obs[{groups!r}]")[0]
    codes[missing] = codes.max() + 1 + np.arange(int(missing.sum()))
    return codes
