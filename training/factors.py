"""Fits the low-rank part of the embedded checkpoint: a factor model with a noise of its own for every gene."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Mask = NDArray[np.bool_]

#: Least noise variance of a gene, and the factor by which all exceed the residuals of the samples that were fitted.
LEAST_NOISE = 0.05
NOISE_FACTOR = 6.0
#: Factors that fill missing entries.
FILLING_FACTORS = 500


@dataclass(frozen=True)
class Factors:
    """x = mean + loadings z + noise, with z ~ N(0, variances) and independent noise of each gene.

    Parameters
    ----------
    mean
        Shape (G,).
    loadings
        Orthonormal columns, (G, K).
    variances
        Variance of each factor, descending, (K,).
    noise
        Variance of each gene's noise, (G,).
    """

    mean: Floats
    loadings: Floats
    variances: Floats
    noise: Floats

    def save(self, path: Path) -> None:
        """Write an ``npz`` file."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **asdict(self))
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an ``npz`` file."""
        return cls(**np.load(path))

    @cached_property
    def gram(self) -> Floats:
        """Products of the loadings in units of each gene's noise, (K, K)."""
        whitened = self.loadings / np.sqrt(self.noise[:, None])
        return whitened.T @ whitened

    def leading(self, n_factors: int) -> Factors:
        """Return the model of the first factors; the others become noise."""
        rest = self.loadings[:, n_factors:] ** 2 @ self.variances[n_factors:]
        return Factors(
            self.mean, self.loadings[:, :n_factors], self.variances[:n_factors], (self.noise + rest).astype(np.float32)
        )

    def predict(self, values: Floats, visible: Mask) -> tuple[Floats, Floats]:
        """Predict all genes of samples that show the same genes.

        Parameters
        ----------
        values
            Shape (n, G); only visible genes are read.
        visible
            Shape (G,).

        Returns
        -------
        Posterior means, (n, G), and the variance that the factors leave at hidden genes, (G,), zero at visible ones.
        """
        scaled = self.loadings[visible] / self.noise[visible, None]
        if visible.mean() > 0.5:
            # cheaper than a sum over the visible genes
            rest = self.loadings[~visible] / np.sqrt(self.noise[~visible, None])
            precision = (self.gram - rest.T @ rest).astype(np.float64)
        else:
            precision = (scaled.T @ self.loadings[visible]).astype(np.float64)
        precision[np.diag_indices_from(precision)] += 1 / self.variances
        factor = cho_factor(precision, lower=True)
        scores = cho_solve(factor, ((values[:, visible] - self.mean[visible]) @ scaled).T.astype(np.float64)).T
        spread = np.zeros(len(self.mean), dtype=np.float32)
        inverse = solve_triangular(factor[0], np.eye(len(precision)), lower=True).astype(np.float32)
        spread[~visible] = ((self.loadings[~visible] @ inverse.T) ** 2).sum(axis=1)
        return self.mean + scores.astype(np.float32) @ self.loadings.T, spread


def complete(values: Floats, *, rounds: int = 3) -> tuple[Floats, Floats]:
    """Fill missing entries by rounds of low-rank reconstruction.

    Parameters
    ----------
    values
        ln(TPM+1), (N, G), ``NaN`` where missing.
    rounds
        Rounds of filling.

    Returns
    -------
    Gene means, (G,), and deviations from them without gaps, (N, G), float32.
    """
    observed = ~np.isnan(values)
    mean = np.where(observed, values, 0).sum(axis=0) / observed.sum(axis=0)
    centred = np.where(observed, values - mean, 0).astype(np.float32)
    for _ in range(rounds):
        loadings, _ = _principal_axes(centred, FILLING_FACTORS)
        centred = np.where(observed, centred, (centred @ loadings) @ loadings.T)
        shift = centred.mean(axis=0)
        mean, centred = mean + shift, centred - shift
    return mean.astype(np.float32), centred


def fit(values: Floats, n_factors: int) -> Factors:
    """Fit the factor model.

    Parameters
    ----------
    values
        ln(TPM+1), (N, G), ``NaN`` where missing.
    n_factors
        Number of factors K.

    Returns
    -------
    The model, float32; the noise comes from what the factors leave of the measured entries.
    """
    mean, centred = complete(values)
    observed = ~np.isnan(values)
    loadings, variances = _principal_axes(centred, n_factors)
    residual = np.where(observed, centred - (centred @ loadings) @ loadings.T, 0)
    noise = (residual**2).sum(axis=0) / observed.sum(axis=0)
    noise = NOISE_FACTOR * np.maximum(noise, LEAST_NOISE)
    return Factors(*(part.astype(np.float32) for part in (mean, loadings, variances, noise)))


def _principal_axes(centred: Floats, n_factors: int) -> tuple[Floats, Floats]:
    """Return the leading axes (G, K) and their variances (K,), by way of the samples' Gram matrix."""
    variances, left = np.linalg.eigh((centred @ centred.T).astype(np.float64) / len(centred))
    variances, left = variances[::-1][:n_factors], left[:, ::-1][:, :n_factors].astype(np.float32)
    axes = centred.T @ left
    return axes / np.linalg.norm(axes, axis=0), variances
