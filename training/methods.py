"""Simple methods of imputation, each fitted on the training samples of a fold: the bar for the embedded checkpoint."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from factors import Factors, _principal_axes
from scipy.linalg import solve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Mask = NDArray[np.bool_]
    Genes = NDArray[np.integer]
    #: Predicts some genes (k,) of samples (n, G), ``NaN`` where hidden or missing: mean and, where the method has one,
    #: standard deviation, both (n, k).
    Predictor = Callable[[Floats, Genes], tuple[Floats, Floats | None]]

#: Rank of the factor model, neighbours of kNN, predictors of ridge.
N_FACTORS, NEIGHBOURS, N_PREDICTORS = 500, 10, 300
#: What is tried on the inner studies: penalties of ridge on standardised genes, ranks that soft-impute leaves.
PENALTIES, RANKS = (30.0, 100.0, 300.0, 1000.0), (60.0, 125.0, 250.0, 500.0)
#: Rounds of soft-impute; genes on which ridge's penalty is chosen; entries of a block of ridge's systems.
ROUNDS, N_CHOOSING, BLOCK = 3, 6000, 128
#: Inner samples and genes that choose, and the share that is hidden from them.
INNER_SAMPLES, INNER_GENES, INNER_RATE = 48, 500, 0.5


@dataclass(frozen=True)
class Training:
    """The training samples of a fold.

    Parameters
    ----------
    expression
        ln(TPM+1), (N, G), ``NaN`` where missing.
    inner
        Samples of the whole studies on which a method chooses what it leaves open, (N,).
    factors
        Factor model of rank 500, fitted on all training samples.
    """

    expression: Floats
    inner: Mask
    factors: Factors

    @cached_property
    def mean(self) -> Floats:
        """Mean of each gene where it was measured, (G,)."""
        return np.nanmean(self.expression, axis=0)

    @cached_property
    def filled(self) -> Floats:
        """Values with the gene's mean where missing, (N, G)."""
        return np.where(np.isnan(self.expression), self.mean, self.expression)


def patterns(values: Floats) -> Iterator[tuple[Genes, Mask]]:
    """Yield the rows that show the same genes, and these genes, (G,)."""
    shown = ~np.isnan(values)
    _, which = np.unique(np.packbits(shown, axis=1), axis=0, return_inverse=True)
    for pattern in range(which.max() + 1):
        rows = np.flatnonzero(which == pattern)
        yield rows, shown[rows[0]]


def by_pattern(predict: Callable[[Floats, Mask], tuple[Floats, Floats | None]]) -> Predictor:
    """Make a predictor of what predicts all genes of samples that show the same ones."""

    def predictor(values: Floats, genes: Genes) -> tuple[Floats, Floats | None]:
        means, deviations = np.empty((len(values), len(genes))), np.full((len(values), len(genes)), np.nan)
        for rows, visible in patterns(values):
            mean, deviation = predict(values[rows], visible)
            means[rows] = mean[:, genes]
            if deviation is not None:
                deviations[rows] = np.broadcast_to(deviation, mean.shape)[:, genes]
        return means, None if np.isnan(deviations).all() else deviations

    return predictor


def gene_mean(training: Training) -> Predictor:
    """Predict the mean of the training samples."""
    return lambda values, genes: (np.tile(training.mean[genes], (len(values), 1)), None)


def knn(training: Training) -> Predictor:
    """Predict the mean of the 10 training samples nearest on the visible genes."""

    def predict(values: Floats, visible: Mask) -> tuple[Floats, None]:
        shown, known = values[:, visible], training.filled[:, visible]
        distance = (known**2).sum(axis=1) - 2 * shown @ known.T
        nearest = np.argpartition(distance, min(NEIGHBOURS, len(known) - 1), axis=1)[:, :NEIGHBOURS]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
            means = np.nanmean(training.expression[nearest], axis=1)
        return np.where(np.isnan(means), training.mean, means), None

    return by_pattern(predict)


def pca(training: Training, n_components: int) -> Predictor:
    """Predict from leading components of the completed training samples, scores by least squares."""
    factors = training.factors
    return _projection(factors.mean, factors.loadings[:, :n_components], 1e-6)


def factor_model(training: Training) -> Predictor:
    """Predict by the factor model; its deviation is that of its own noise and of its scores."""
    factors = training.factors

    def predict(values: Floats, visible: Mask) -> tuple[Floats, Floats]:
        mean, spread = factors.predict(values, visible)
        return mean, np.sqrt(factors.noise + spread)

    return by_pattern(predict)


def soft_impute(training: Training) -> Predictor:
    """Predict by soft-impute (Mazumder et al. 2010), its threshold chosen on the inner studies.

    The training samples are completed by rounds of a singular value decomposition with shrunken values. A new sample
    is the row that softImpute-ALS (Hastie et al. 2015) adds for it, a ridge regression on the shrunken components.
    """
    rank = choose(lambda values: {rank: _shrunken(values, int(rank), rounds=1) for rank in RANKS}, training)
    return _shrunken(training.expression, int(rank), rounds=ROUNDS)


def _shrunken(values: Floats, rank: int, *, rounds: int) -> Predictor:
    observed, mean = ~np.isnan(values), np.nanmean(values, axis=0)
    centred = np.where(observed, values - mean, 0).astype(np.float32)
    for turn in range(rounds):
        axes, variances = _principal_axes(centred, min(rank + 1, len(values) - 1))
        singular = np.sqrt(np.maximum(variances, 0) * len(values))
        threshold = singular[-1]
        axes, kept, shrunken = axes[:, :-1], singular[:-1], singular[:-1] - threshold
        if turn + 1 < rounds:
            centred = np.where(observed, centred, (centred @ axes) * (shrunken / kept).astype(np.float32) @ axes.T)
    return _projection(mean, axes * np.sqrt(shrunken).astype(np.float32), float(threshold))


def _projection(mean: Floats, loadings: Floats, penalty: float) -> Predictor:
    def predict(values: Floats, visible: Mask) -> tuple[Floats, None]:
        seen = loadings[visible]
        system = (seen.T @ seen).astype(np.float64) + penalty * np.eye(loadings.shape[1])
        scores = np.linalg.solve(system, seen.T @ (values[:, visible] - mean[visible]).T)
        return mean + (loadings @ scores).T, None

    return by_pattern(predict)


def ridge(training: Training) -> Predictor:
    """Predict each gene by ridge regression on the 300 visible genes most correlated with it.

    The penalty is chosen on the inner studies, on at most 6,000 of the genes. Where some samples lack a gene that
    others show, the factor model fills it.
    """
    n_genes = training.expression.shape[1]
    some = np.sort(np.random.default_rng(0).permutation(n_genes)[:N_CHOOSING])

    def fits(values: Floats) -> dict[float, Predictor]:
        fitted = Ridge.fit(values)
        return {penalty: lambda shown, genes, p=penalty: (fitted(shown, genes, p), None) for penalty in PENALTIES}

    penalty = choose(fits, Training(training.expression[:, some], training.inner, training.factors))
    fitted, fill = Ridge.fit(training.expression), factor_model(training)

    def predict(values: Floats, genes: Genes) -> tuple[Floats, None]:
        partly = np.flatnonzero(np.isnan(values).any(axis=0) & ~np.isnan(values).all(axis=0))
        if len(partly):
            completed = values.copy()
            completed[:, partly] = np.where(np.isnan(values[:, partly]), fill(values, partly)[0], values[:, partly])
            values = completed
        return fitted(values, genes, penalty), None

    return predict


@dataclass(frozen=True)
class Ridge:
    """Ridge regressions of every gene on any others, out of one correlation matrix.

    Parameters
    ----------
    mean, scale
        Mean and standard deviation of each gene, (G,).
    correlation
        Of the training samples, missing entries counting as the gene's mean, (G, G).
    n_samples
        Number of training samples.
    """

    mean: Floats
    scale: Floats
    correlation: torch.Tensor
    n_samples: int

    @classmethod
    def fit(cls, values: Floats) -> Ridge:
        """Correlate all genes."""
        mean = np.nanmean(values, axis=0)
        centred = np.nan_to_num(values - mean)
        scale = np.maximum(centred.std(axis=0), 1e-3)
        scaled = torch.from_numpy((centred / scale).astype(np.float32))
        return cls(mean, scale, (scaled.T @ scaled).div_(len(values)), len(values))

    def __call__(self, values: Floats, genes: Genes, penalty: float) -> Floats:
        """Predict genes (k,) of samples (n, G) from those that any sample shows; a missing one counts as its mean."""
        shown = np.flatnonzero(~np.isnan(values).all(axis=0))
        scaled = np.nan_to_num((values - self.mean) / self.scale)
        known = torch.from_numpy(scaled.astype(np.float32))
        columns, parts = torch.from_numpy(shown), []
        for start in range(0, len(genes), BLOCK):
            block = torch.from_numpy(genes[start : start + BLOCK])
            correlated = self.correlation[block][:, columns]
            chosen = columns[correlated.abs().topk(min(N_PREDICTORS, len(shown)), dim=1).indices]
            system = self.correlation[chosen[:, :, None], chosen[:, None, :]]
            system.diagonal(dim1=1, dim2=2).add_(penalty / self.n_samples)
            target = self.correlation[block[:, None], chosen]
            # one by one: torch's batched Cholesky is many times slower at this size
            pairs = zip(system.numpy(), target.numpy(), strict=True)
            weights = np.stack([solve(a, b, assume_a="pos", check_finite=False) for a, b in pairs])
            parts.append(torch.einsum("nbk,bk->nb", known[:, chosen], torch.from_numpy(weights)).numpy())
        return self.mean[genes] + self.scale[genes] * np.concatenate(parts, axis=1)


def choose(fits: Callable[[Floats], Mapping[float, Predictor]], training: Training) -> float:
    """Return the setting whose fit to the other training studies predicts the inner ones best, half of them hidden."""
    values, genes, truth = inner_trial(training)
    fitted = fits(training.expression[~training.inner])
    errors = {setting: np.nanmean((predict(values, genes)[0] - truth) ** 2) for setting, predict in fitted.items()}
    return min(errors, key=errors.__getitem__)


def inner_trial(training: Training) -> tuple[Floats, Genes, Floats]:
    """Return inner samples with half of the genes hidden, some of the hidden genes, and what was measured there."""
    rng = np.random.default_rng(1)
    rows = rng.permutation(np.flatnonzero(training.inner))[:INNER_SAMPLES]
    hidden = rng.random(training.expression.shape[1]) < INNER_RATE
    genes = np.sort(rng.permutation(np.flatnonzero(hidden))[:INNER_GENES])
    values = training.expression[rows]
    return np.where(hidden, np.nan, values), genes, values[:, genes]
