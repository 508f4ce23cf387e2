"""The embedded checkpoint's network: two linear models, and a graph-and-attention encoder for what they leave over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bulkformer_tl.models._factor_model import FactorModel
from bulkformer_tl.models._layers import Encoder, GraphPerformer, ValueEncoding, drop_when_loaded
from bulkformer_tl.models._neighbour_model import NeighbourModel


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
    n_entries
        Stored entries of the neighbour model.
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
    n_entries: int
    context: int = 32
    n_global: int = 64
    heads: int = 4

    @property
    def dim(self) -> int:
        """Width D of a gene vector: predicted mean, log of its deviation, context."""
        return self.context + 2


class MiniNetwork(Encoder):
    """Two linear models of expression, whose residual at hidden genes a small encoder predicts.

    A factor model says of every gene, with which variance, what all measured genes of the sample make of it; it also
    completes the sample for a ridge regression of each gene on its neighbours. Their weighted mean is the prediction
    that the encoder starts from. Of a gene vector the first two columns are that mean and the log of its deviation; the
    others come from the encoder.
    """

    config: MiniConfig

    def __init__(self, config: MiniConfig) -> None:
        super().__init__(config)
        genes, width = config.n_genes, config.context
        self.unseen: Tensor
        self.neighbour_share: Tensor
        self.shrinkage: Tensor
        self.calibration: Tensor
        # residual variance in studies that were not fitted; the factors' ``noise`` only weighs the genes
        self.register_buffer("unseen", torch.ones(genes))
        self.register_buffer("neighbour_share", torch.zeros(()))
        self.register_buffer("shrinkage", torch.ones(()))
        self.register_buffer("calibration", torch.ones(()))
        self.gene_vectors: Tensor | None
        self.register_buffer("gene_vectors", None, persistent=False)
        drop_when_loaded(self)
        self.value_encoding = ValueEncoding(width, persistent=False)
        self.signal = nn.Linear(5, width)
        self.sample = nn.Linear(config.n_global + 2, width)
        self.block = GraphPerformer(width, heads=config.heads, n_performers=1, attn_dropout=0.0, ff_dropout=0.0)
        self.norm = nn.LayerNorm(width)
        # zero, so that the network starts as the linear models
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # last, so that what a seed gives the encoder does not depend on how the linear models start
        self.factors = FactorModel(genes, config.n_factors)
        self.neighbours = NeighbourModel(genes, config.n_entries)

    def forget(self) -> None:
        """Drop what was computed from the weights."""
        self.gene_vectors = None

    def gene_table(self) -> Tensor:
        """Return the static vector of each gene, its scaled leading loadings, (G, D - 2)."""
        if self.gene_vectors is None:
            width = self.config.context
            vectors = self.factors.loadings[:, :width] * self.factors.variances[:width].sqrt()
            self.gene_vectors = vectors / vectors.std(dim=0).clamp(min=1e-6)
        return self.gene_vectors

    def posterior(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all genes from the observed ones by the linear models alone.

        Parameters
        ----------
        values
            ln(TPM+1), (N, G); read only where observed.
        observed
            Shape (N, G).

        Returns
        -------
        Means, (N, G), and the variance that the uncertainty of the factor scores adds at hidden genes, (N, G); zero at
        observed genes, where it is small beside the noise.
        """
        mean, gap, spread = self.linear(values, observed)
        return mean + self.neighbour_share * gap, spread

    def linear(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the factor model's mean, how far the neighbours' is from it, and the variance at hidden genes."""
        rows = [self.factors.posterior(row, mask) for row, mask in zip(values, observed, strict=True)]
        mean, spread = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
        complete = torch.where(observed, values, mean) - self.factors.mean
        return mean, self.factors.mean + self.neighbours(complete) - mean, spread

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return gene vectors (N, G, D) of samples (N, G)."""
        return self._join(*self.tokens(values, observed))

    def tokens(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return what enters the encoder, (N, G, context), and the two columns before its vectors, (N, G, 2)."""
        mean, gap, spread = self.linear(values, observed)
        return self._tokens(values, observed, mean + self.neighbour_share * gap, gap, spread)

    def contextualise(self, values: Tensor, observed: Tensor, mean: Tensor, gap: Tensor, spread: Tensor) -> Tensor:
        """Return gene vectors (N, G, D) given what linear models say of the samples.

        Training passes predictions of models that were fitted without the samples' study.
        """
        return self._join(*self._tokens(values, observed, mean, gap, spread))

    def _tokens(
        self, values: Tensor, observed: Tensor, mean: Tensor, gap: Tensor, spread: Tensor
    ) -> tuple[Tensor, Tensor]:
        deviation = (self.unseen + spread).sqrt()
        residual = torch.where(observed, (values - mean) / deviation, 0.0)
        share = observed.float().mean(dim=1, keepdim=True)
        misfit = (residual.square().mean(dim=1, keepdim=True) / share.clamp(min=1e-6) + 1e-3).log()
        leading = self.factors.project(mean - self.factors.mean)[:, : self.config.n_global]
        leading = leading * self.factors.variances[: self.config.n_global].rsqrt()
        whole = self.sample(torch.cat([leading, misfit, share], dim=1))
        signals = [mean - self.factors.mean, gap, deviation.log(), residual, observed.float()]
        signal = self.signal(torch.stack(signals, dim=-1))
        tokens = self.gene_table() + self.value_encoding(values, observed) + signal + whole[:, None]
        return tokens, torch.stack([mean, deviation.log()], dim=-1)

    def _join(self, tokens: Tensor, columns: Tensor) -> Tensor:
        return torch.cat([columns, self.norm(self.block(tokens, self.adjacency()))], dim=-1)

    def sample_vector(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return the leading factor scores, (N, n_scores), in units of ln(TPM+1), ordered by variance.

        They need the factor model alone, so the encoder does not run for them.
        """
        rows = [self.factors.scores(row, mask)[0] for row, mask in zip(values, observed, strict=True)]
        return torch.stack(rows)[:, : self.config.n_scores]

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
