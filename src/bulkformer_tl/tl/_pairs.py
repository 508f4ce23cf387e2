"""Predict a matrix of lines and columns (drugs, genes) out of fold, by a model of pairs and by simple methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.metrics import Split, k_fold, leave_pair_out
from bulkformer_tl.metrics._complete import additive, column_mean, nearest_column, own_slope
from bulkformer_tl.metrics._heads import grid_of
from bulkformer_tl.tl._pair_mlp import fit_mlp
from bulkformer_tl.tl._pair_model import fit_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._pair_model import PairModel, Recipe
    from bulkformer_tl.tl._samples import Block

    Numbers = NDArray[np.float64]

#: Lines that a column must be trained on in every fold, where its own lines are what it is trained on.
MIN_TRAIN = 2
#: Penalties for each feature of a column among which inner folds choose; the middle one is the default.
COLUMN_GRID = (0.1, 1.0, 10.0)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Lines and columns with what is measured of their pairs; the lines of a reference come first.

    Parameters
    ----------
    known
        Shape (N, M), ``NaN`` where not measured; 0 and 1 for classes.
    classes
        Whether it holds classes.
    columns
        Names of the columns.
    representation
        What is judged, shape (N, D).
    values
        ln(TPM+1), shape (N, G), or ``None`` if nothing reads it.
    features
        Of the columns, shape (M, P), or ``None``.
    row_groups
        What is kept together of the lines, shape (N,).
    column_groups
        What is kept together of the columns, shape (M,).
    n_reference
        Lines of the reference.
    genes
        Names of the columns of ``values``.
    own
        A number that belongs to each pair, such as the expression of the gene in the line, shape (N, M), or ``None``.
    covariates
        Of the lines, shape (N, C), or ``None``.
    """

    known: Numbers
    classes: bool
    columns: list[str]
    representation: NDArray[np.float32]
    values: NDArray[np.float32] | None
    features: NDArray[np.float32] | None
    row_groups: NDArray[np.intp]
    column_groups: NDArray[np.intp]
    n_reference: int
    genes: list[str]
    own: NDArray[np.float32] | None = None
    covariates: NDArray[np.float32] | None = None

    @property
    def positions(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of each measured pair."""
        rows, columns = np.nonzero(~np.isnan(self.known))
        return rows, columns


@dataclass(frozen=True)
class Kind:
    """What the columns are, and which side is new where a pair is tested.

    Parameters
    ----------
    column
        ``"drug"`` or ``"gene"``.
    unseen
        ``"line"``, the column's name, ``"both"`` or ``"pair"``.
    """

    column: str
    unseen: str

    @property
    def new_columns(self) -> bool:
        """Whether tested columns were not trained on."""
        return self.unseen in (self.column, "both")

    @property
    def resampled(self) -> tuple[str, ...]:
        """What the intervals resample: what is new."""
        return {"line": ("rows",), self.column: ("columns",)}.get(self.unseen, ("rows", "columns"))

    @property
    def axes(self) -> tuple[str, str]:
        """What scores of each column and of each line are called."""
        return f"per_{self.column}", "per_line"

    @property
    def baselines(self) -> dict[str, bool]:
        """Every baseline, and whether it is taken unless a protocol names others."""
        other = self.unseen in (self.column, "pair")
        names = {f"{self.column}_mean": True, "additive": other, f"nearest_{self.column}": self.new_columns}
        own = {"expression": True} if self.column == "gene" else {}
        return {**names, **own, "raw": True, "pca": True, "covariates": True, "untrained": False}


@dataclass(eq=False)
class Filled:
    """Out-of-fold predictions.

    Parameters
    ----------
    predicted
        For each candidate, shape (N, M); ``NaN`` where it predicts nothing out of fold.
    folds
        Split that tests each pair, -1 if none, shape (N, M).
    model
        What was fitted last to all training pairs under the first candidate.
    chosen
        Penalties of each split, where inner folds chose them.
    """

    predicted: dict[str, Numbers]
    folds: NDArray[np.intp]
    model: PairModel
    chosen: list[list[float]] = field(default_factory=list)


def split_pairs(
    pairs: Pairs, kind: Kind, protocol: Protocol, within: NDArray[np.intp] | None = None, n_splits: int | None = None
) -> list[Split]:
    """Split measured pairs so that what is to be unseen is on one side only.

    Parameters
    ----------
    pairs
        The pairs.
    kind
        What is unseen.
    protocol
        Scheme, folds and seed.
    within
        Positions among the measured pairs to split; ``None`` takes all.
    n_splits
        Inner folds in place of the protocol's splits.

    Returns
    -------
    Splits of positions among the measured pairs.
    """
    rows, columns = pairs.positions
    chosen = np.arange(len(rows)) if within is None else within
    rows, columns = rows[chosen], columns[chosen]
    n = n_splits or protocol.n_splits
    if kind.unseen == "both":
        found = leave_pair_out(pairs.row_groups[rows], pairs.column_groups[columns], n_splits=n, rng=protocol.rng)
    elif kind.unseen == "pair":
        found = k_fold(len(rows), n_splits=n, rng=protocol.rng)
    else:
        side, groups = (rows, pairs.row_groups) if kind.unseen == "line" else (columns, pairs.column_groups)
        units, of_pair = np.unique(side, return_inverse=True)
        inside = groups[units]
        outer = n_splits is None
        split = protocol.split(len(units), groups=inside) if outer else k_fold(len(units), n_splits=n, groups=inside)
        found = [
            Split(np.flatnonzero(np.isin(of_pair, part.train)), np.flatnonzero(np.isin(of_pair, part.test)), part.name)
            for part in split
        ]
    return [Split(chosen[part.train], chosen[part.test], part.name) for part in found]


def plan_pairs(pairs: Pairs, kind: Kind, protocol: Protocol) -> list[Split]:
    """Split the pairs, or train on those of the reference, and refuse columns that would have nothing to train on."""
    rows, columns = pairs.positions
    if pairs.n_reference:
        own = rows >= pairs.n_reference
        shared = np.isin(pairs.row_groups, pairs.row_groups[pairs.n_reference :])
        train, test = np.flatnonzero(~own & ~shared[rows]), np.flatnonzero(own)
        splits = [Split(train, test, "reference")]
    else:
        splits = split_pairs(pairs, kind, protocol)
    if kind.new_columns:
        return splits
    least = np.min([np.bincount(columns[part.train], minlength=len(pairs.columns)) for part in splits], axis=0)
    poor = [pairs.columns[column] for column in np.flatnonzero(least < MIN_TRAIN)]
    if poor:
        message = (
            f"{len(poor)} of {len(pairs.columns)} {kind.column}s are measured in too few lines, such as {poor[:3]}: "
            f"some fold would train on fewer than {MIN_TRAIN} of them. Leave them out, as with "
            f"table.loc[:, table.notna().sum() >= {2 * protocol.n_splits}]"
        )
        raise ValueError(message)
    return splits


def candidates(
    pairs: Pairs,
    name: str,
    *,
    head: str,
    options: Mapping[str, Any],
    baselines: list[str],
    untrained: NDArray[np.float32] | None,
    blocks: tuple[Block, ...],
    rng: int,
) -> dict[str, Any]:
    """List what predicts pairs: the representation under its head first, its modalities, then baselines by name.

    Returns
    -------
    Name, and a function of the known matrix that returns predictions, shape (N, M), and the model of pairs if it is
    one; ridge regressions also take ``penalties``.
    """
    itself = pairs.representation is pairs.values
    recipe: Recipe = "each" if itself else "common"
    if blocks:
        recipe = tuple((block.columns.stop - block.columns.start, block.scale) for block in blocks)
    fit = partial(fit_mlp, options=options) if head == "mlp" else fit_linear
    found: dict[str, Any] = {name: partial(_modelled, pairs, fit, pairs.representation, recipe=recipe, rng=rng)}
    for block in blocks:
        alone = pairs.representation[:, block.columns]
        found[block.name] = partial(_modelled, pairs, fit, alone, recipe=block.scale, rng=rng)
    for other in baselines:
        if other in found:
            continue
        if other == "additive":
            found[other] = partial(filled_by, additive)
        elif other.endswith("_mean"):
            found[other] = partial(filled_by, column_mean)
        elif other == "expression":
            found[other] = partial(filled_by, partial(own_slope, own=np.asarray(pairs.own)))
        elif other.startswith("nearest_"):
            found[other] = partial(filled_by, partial(nearest_column, features=np.asarray(pairs.features)))
        else:
            made: Recipe = {"pca": "pca", "untrained": "common"}.get(other, "each")  # type: ignore[assignment]
            matrix = {"untrained": untrained, "covariates": pairs.covariates}.get(other, pairs.values)
            found[other] = partial(_modelled, pairs, fit_linear, matrix, recipe=made, rng=rng)
    return found


def filled_by(fill: Callable[[Numbers], Numbers], known: Numbers) -> tuple[Numbers, None]:
    """Return what a function of the known matrix fills it with, and no model."""
    return fill(known), None


def _modelled(pairs: Pairs, fit: Any, matrix: Any, known: Numbers, **options: Any) -> tuple[Numbers, PairModel]:
    model: PairModel = fit(known, matrix, pairs.features, **options)
    return model.predict(matrix), model


def fill_pairs(
    pairs: Pairs, kind: Kind, protocol: Protocol, *, splits: list[Split], found: Mapping[str, Any], task: str
) -> Filled:
    """Predict each tested pair by candidates that were fitted without its fold, and all others by the first candidate.

    Parameters
    ----------
    pairs
        The pairs.
    kind
        What is unseen.
    protocol
        Inner folds that choose penalties.
    splits
        Outer splits.
    found
        Candidates; the first is also fitted to all training pairs.
    task
        What the progress bar is called.
    """
    rows, columns = pairs.positions
    predicted = {name: np.full(pairs.known.shape, np.nan) for name in found}
    folds = np.full(pairs.known.shape, -1, dtype=np.intp)
    name = next(iter(found))
    chosen = []
    with Progress(len(splits) * len(found) + 1, task) as progress:
        for position, split in enumerate(splits):
            at = rows[split.test], columns[split.test]
            folds[at] = position
            for other, fit in found.items():
                more = _penalties(pairs, kind, protocol, split, fit)
                filled, _ = fit(_training(pairs, split.train), **more)
                predicted[other][at] = filled[at]
                if other == name:
                    chosen += [list(more["penalties"])] if more else []
                progress.update(1)
        # of a reference, the only split has all training pairs
        train = splits[0].train if pairs.n_reference else np.arange(len(rows))
        everything = Split(train, train[:0], "all")
        more = _penalties(pairs, kind, protocol, everything, found[name])
        filled, model = found[name](_training(pairs, train), **more)
        progress.update(1)
    rest = folds < 0
    predicted[name][rest] = filled[rest]
    return Filled(predicted, folds, model, chosen)


def _training(pairs: Pairs, train: NDArray[np.intp]) -> Numbers:
    """Return the matrix with nothing but training pairs."""
    rows, columns = pairs.positions
    at = rows[train], columns[train]
    known = np.full(pairs.known.shape, np.nan)
    known[at] = pairs.known[at]
    return known


def _penalties(pairs: Pairs, kind: Kind, protocol: Protocol, split: Split, fit: Any) -> dict[str, Any]:
    """Choose both penalties of a ridge regression by inner folds that leave out what the outer ones do."""
    if not protocol.n_inner or "recipe" not in fit.keywords:
        return {}
    grid = grid_of("linear", "regression")["alpha"]
    options = list(product(grid, COLUMN_GRID if kind.new_columns else COLUMN_GRID[1:2]))
    try:
        inner = split_pairs(pairs, kind, protocol, split.train, protocol.n_inner)
    except ValueError:
        # too few lines or columns to split again
        return {}
    rows, columns = pairs.positions
    losses = np.zeros(len(options))
    for part in inner:
        known, at = _training(pairs, part.train), (rows[part.test], columns[part.test])
        for position, penalties in enumerate(options):
            losses[position] += ((fit(known, penalties=penalties)[0][at] - pairs.known[at]) ** 2).sum()
    return {"penalties": options[int(losses.argmin())]}
