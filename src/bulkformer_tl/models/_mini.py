"""The embedded checkpoint's network: a factor model, and a graph-and-attention encoder for what it leaves over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bulkformer_tl.models._layers import Encoder, GraphPerformer, ValueEncoding


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the network.

    Parameters
    ----------
    n_genes
        Number of genes G.
    n_factors
        Number of factors K.
    n_scores
        Leading factors that make up the sample vector ``"scores"``.
    context
        Width of the encoder; a gene vector has two more columns.
    n_global
        Leading factors that the encoder sees of the whole sample.
    heads
        Attention heads H.
    """

    n_genes: int
    n_factors: int
    n_scores: int
    context: int = 32
    n_global: int = 64
    heads: int = 4

    @property
    def dim(self) -> int:
        """Width D of a gene vector: predicted mean, log of its deviation, context."""
        return self.context + 2


class MiniNetwork(Encoder):
    """Factor model x = mean + loadings z + noise whose residual at hidden genes a small encoder predicts.

    The scores z of a sample are their posterior mean given its measured genes alone. Of a gene vector the first two
    columns are the factor model's mean and the log of its deviation; the others come from the encoder.
    """

    config: MiniConfig

    def __init__(self, config: MiniConfig) -> None:
        super().__init__(config)
        genes, factors, width = config.n_genes, config.n_factors, config.context
        self.mean: Tensor
        self.loadings: Tensor
        self.variances: Tensor
        self.noise: Tensor
        self.unseen: Tensor
        self.shrinkage: Tensor
        self.calibration: Tensor
        self.whitened: Tensor | None
        self.gram: Tensor | None
        self.register_buffer("mean", torch.zeros(genes))
        self.register_buffer("loadings", torch.zeros(genes, factors, dtype=torch.float16))
        self.register_buffer("variances", torch.ones(factors))
        self.register_buffer("noise", torch.ones(genes))
        # residual variance in studies that were not fitted; ``noise`` only weighs the genes
        self.register_buffer("unseen", torch.ones(genes))
        self.register_buffer("shrinkage", torch.ones(()))
        self.register_buffer("calibration", torch.ones(()))
        for name in ("whitened", "gram"):
            self.register_buffer(name, None, persistent=False)
        self.gene_embedding = nn.Embedding(genes, width)
        self.value_encoding = ValueEncoding(width, persistent=False)
        self.signal = nn.Linear(4, width)
        self.sample = nn.Linear(config.n_global + 2, width)
        self.block = GraphPerformer(width, heads=config.heads, n_performers=1, attn_dropout=0.0, ff_dropout=0.0)
        self.norm = nn.LayerNorm(width)
        # zero, so that the network starts as the factor model
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights; what was computed from the old ones is dropped."""
        result = super().load_state_dict(*args, **kwargs)
        self.whitened = self.gram = None
        return result

    def gene_table(self) -> Tensor:
        """Return the static vector of each gene, its scaled loadings, (G, D - 2)."""
        return self.gene_embedding.weight

    def posterior(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all genes from the observed ones by the factor model alone.

        Parameters
        ----------
        values
            ln(TPM+1), (N, G); read only where observed.
        observed
            Shape (N, G).

        Returns
        -------
        Posterior means, (N, G), and the variance that the scores' uncertainty adds at hidden genes, (N, G); zero at
        observed genes, where it is small beside the noise.
        """
        parts = [self._posterior(row, mask) for row, mask in zip(values, observed, strict=True)]
        return torch.stack([mean for mean, _ in parts]), torch.stack([variance for _, variance in parts])

    def _posterior(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        whitened, hidden = self._whitened()[0], ~observed
        scores, lower = self._solve(values, observed)
        inverse = torch.linalg.solve_triangular(
            lower, torch.eye(len(lower), dtype=lower.dtype, device=lower.device), upper=False
        )
        spread = torch.zeros_like(values)
        spread[hidden] = self.noise[hidden] * (whitened[hidden] @ inverse.T.to(values)).square().sum(dim=1)
        return self.mean + (whitened @ scores) * self.noise.sqrt(), spread

    def _solve(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior mean of a sample's scores, (K,), and the Cholesky factor of their precision, (K, K)."""
        whitened, gram = self._whitened()
        hidden = ~observed
        # few missing genes are taken out of the Gram matrix of all genes, which is cheaper than a sum over the others
        few_hidden = int(hidden.sum()) < len(hidden) // 2
        part = whitened[hidden if few_hidden else observed]
        precision = gram - part.T @ part if few_hidden else part.T @ part
        # Apple's GPUs have no double precision
        home = torch.device("cpu") if precision.device.type == "mps" else precision.device
        precision = precision.to(home).double() + torch.diag(1 / self.variances.to(home).double())
        lower = torch.linalg.cholesky(precision)
        shown = torch.where(observed, (values - self.mean) * self.noise.rsqrt(), 0.0) @ whitened
        return torch.cholesky_solve(shown.to(precision)[:, None], lower)[:, 0].to(values), lower

    def _whitened(self) -> tuple[Tensor, Tensor]:
        """Return the loadings in units of each gene's noise, (G, K), and their Gram matrix, (K, K)."""
        if self.whitened is None or self.gram is None:
            self.whitened = self.loadings.float() * self.noise.rsqrt()[:, None]
            self.gram = self.whitened.T @ self.whitened
        return self.whitened, self.gram

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return gene vectors (N, G, D) of samples (N, G)."""
        return self.contextualise(values, observed, *self.posterior(values, observed))

    def contextualise(self, values: Tensor, observed: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """Return gene vectors (N, G, D) given what a factor model says of the samples.

        Training passes predictions of a model that was fitted without the samples' study.
        """
        deviation = (self.unseen + spread).sqrt()
        residual = torch.where(observed, (values - mean) / deviation, 0.0)
        share = observed.float().mean(dim=1, keepdim=True)
        misfit = (residual.square().mean(dim=1, keepdim=True) / share.clamp(min=1e-6) + 1e-3).log()
        leading = self.scores(mean)[:, : self.config.n_global] * self.variances[: self.config.n_global].rsqrt()
        whole = self.sample(torch.cat([leading, misfit, share], dim=1))
        signal = self.signal(torch.stack([mean - self.mean, deviation.log(), residual, observed.float()], dim=-1))
        tokens = self.gene_embedding.weight + self.value_encoding(values, observed) + signal + whole[:, None]
        context = self.norm(self.block(tokens, self.adjacency()))
        return torch.cat([mean[..., None], deviation.log()[..., None], context], dim=-1)

    def scores(self, mean: Tensor) -> Tensor:
        """Return factor scores, (N, K), of expression that lies in the factors' space, (N, G)."""
        return ((mean - self.mean) * self.noise.sqrt()) @ self._whitened()[0]

    def sample_vector(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return the leading factor scores, (N, n_scores), in units of ln(TPM+1), ordered by variance.

        They need the factor model alone, so the encoder does not run for them.
        """
        whitened = self._whitened()[0]
        solved = torch.stack([self._solve(row, mask)[0] for row, mask in zip(values, observed, strict=True)])
        mean = self.mean + (solved @ whitened.T) * self.noise.sqrt()
        return self.scores(mean)[:, : self.config.n_scores]

    def correct(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the encoder adds to the mean and to the log of the deviation, both (N, G)."""
        mean, log_deviation = self.head(hidden[..., 2:]).unbind(dim=-1)
        return mean, log_deviation.clamp(-2.0, 2.0)

    def predict(self, hidden: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Return predicted ln(TPM+1), (N, G), unclipped."""
        return hidden[..., 0] + self.shrinkage * self.correct(hidden)[0]

    def deviation(self, hidden: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Return the standard deviation of the prediction, (N, G), calibrated on studies that were left out."""
        return self.calibration * (hidden[..., 1] + self.correct(hidden)[1]).exp()
