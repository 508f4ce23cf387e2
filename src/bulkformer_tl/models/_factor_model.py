"""A factor model of expression: what the measured genes of a sample say of all genes, and with which error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bulkformer_tl.models._layers import drop_when_loaded


class FactorModel(nn.Module):
    """x = mean + loadings z + noise, with z ~ N(0, variances) and independent noise of each gene.

    Loadings are stored as 8-bit integers with one scale for each factor; everything is computed from the rounded ones,
    so that scores and predictions agree with each other.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_factors
        Number of factors K.
    """

    def __init__(self, n_genes: int, n_factors: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.codes: Tensor
        self.scale: Tensor
        self.variances: Tensor
        self.noise: Tensor
        self.register_buffer("mean", torch.zeros(n_genes))
        # untrained as other weights are: at random, of about unit length
        self.register_buffer("codes", torch.empty(n_genes, n_factors, dtype=torch.int8).random_(-127, 128))
        self.register_buffer("scale", torch.full((n_factors,), (3 / n_genes) ** 0.5 / 127))
        self.register_buffer("variances", torch.ones(n_factors))
        self.register_buffer("noise", torch.ones(n_genes))
        self.whitened: Tensor | None
        self.gram: Tensor | None
        for name in ("whitened", "gram"):
            self.register_buffer(name, None, persistent=False)
        self._solved: tuple[Tensor, Tensor, Tensor] | None = None
        drop_when_loaded(self)

    def set_model(self, mean: Tensor, loadings: Tensor, variances: Tensor, noise: Tensor) -> None:
        """Take over a fitted model: means (G,), loadings (G, K), variances (K,), noise variances (G,)."""
        self.scale.copy_(loadings.abs().amax(dim=0).clamp(min=1e-12) / 127)
        self.codes.copy_((loadings / self.scale).round())
        self.mean.copy_(mean)
        self.variances.copy_(variances)
        self.noise.copy_(noise)
        self.forget()

    def forget(self) -> None:
        """Drop what was computed from the buffers."""
        self.whitened = self.gram = self._solved = None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        # what was solved lies on the old device
        self._solved = None
        untyped: Any = super()
        return untyped._apply(*args, **kwargs)

    @property
    def loadings(self) -> Tensor:
        """Loadings as they are used, (G, K), float32."""
        return self.codes.float() * self.scale

    def posterior(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict all genes of one sample from the observed ones.

        Parameters
        ----------
        values
            ln(TPM+1), (G,); read only where observed.
        observed
            Shape (G,).

        Returns
        -------
        Posterior mean, (G,); the variance that the scores' uncertainty adds at hidden genes, (G,), zero at observed
        ones, where it is small beside the noise; and the posterior mean of the scores, (K,).
        """
        scores, spread = self.scores(values, observed, spread=True)
        return self.mean + (self._whitened()[0] @ scores) * self.noise.sqrt(), spread, scores

    def scores(self, values: Tensor, observed: Tensor, *, spread: bool = False) -> tuple[Tensor, Tensor]:
        """Return the posterior mean of one sample's scores, (K,), and on request the variance at hidden genes, (G,)."""
        lower, variance = self._solve(observed, spread=spread)
        shown = torch.where(observed, (values - self.mean) * self.noise.rsqrt(), 0.0) @ self._whitened()[0]
        return torch.cholesky_solve(shown.to(lower)[:, None], lower)[:, 0].to(values), variance

    def project(self, deviations: Tensor) -> Tensor:
        """Return the scores, (N, K), of deviations from the mean that lie in the factors' space, (N, G)."""
        return (deviations * self.noise.sqrt()) @ self._whitened()[0]

    def _solve(self, observed: Tensor, *, spread: bool) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of the scores' precision, (K, K), and the variance at hidden genes.

        The last pattern of missing genes is kept: samples of one cohort mostly share it, and only the right-hand side
        of their systems differs.
        """
        if self._solved is not None and torch.equal(self._solved[0], observed):
            _, lower, variance = self._solved
            if len(variance) or not spread:
                return lower, variance
        else:
            lower = self._factorise(observed)
        variance = self._spread(lower, observed) if spread else observed.new_empty(0, dtype=torch.float32)
        self._solved = observed.clone(), lower, variance
        return lower, variance

    def _factorise(self, observed: Tensor) -> Tensor:
        whitened, gram = self._whitened()
        hidden = ~observed
        # few missing genes are taken out of the Gram matrix of all genes, which is cheaper than a sum over the others
        few_hidden = int(hidden.sum()) < len(hidden) // 2
        part = whitened[hidden if few_hidden else observed]
        precision = gram - part.T @ part if few_hidden else part.T @ part
        # Apple's GPUs have no double precision
        home = torch.device("cpu") if precision.device.type == "mps" else precision.device
        precision = precision.to(home).double() + torch.diag(1 / self.variances.to(home).double())
        lower: Tensor = torch.linalg.cholesky(precision)
        return lower

    def _spread(self, lower: Tensor, observed: Tensor) -> Tensor:
        inverse = torch.linalg.solve_triangular(
            lower, torch.eye(len(lower), dtype=lower.dtype, device=lower.device), upper=False
        )
        spread, hidden = torch.zeros_like(self.noise), ~observed
        part = self._whitened()[0][hidden]
        spread[hidden] = self.noise[hidden] * (part @ inverse.T.to(part)).square().sum(dim=1)
        return spread

    def _whitened(self) -> tuple[Tensor, Tensor]:
        """Return the loadings in units of each gene's noise, (G, K), and their Gram matrix, (K, K)."""
        if self.whitened is None or self.gram is None:
            self.whitened = self.loadings * self.noise.rsqrt()[:, None]
            self.gram = self.whitened.T @ self.whitened
        return self.whitened, self.gram
