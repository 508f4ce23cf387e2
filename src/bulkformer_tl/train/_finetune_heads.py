"""Heads on the vectors of samples and genes, and what their predictions cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bulkformer_tl.metrics._partial_likelihood import partial_likelihood

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkformer_tl.train._targets import Target

#: What heads read of some samples: their vectors (n, D), and those of k genes (n, k, D) where a head reads them.
type Features = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Scale:
    """How vectors are centred and scaled before a head: by their training mean, and each part by one number.

    Parameters
    ----------
    centre, spread
        Of each column, (D,).
    """

    centre: Tensor
    spread: Tensor

    @classmethod
    def fit(cls, vectors: Tensor, parts: list[int]) -> Scale:
        """Fit to vectors (n, D) that consist of parts of these widths; columns of a part keep their proportions."""
        finite = vectors[~vectors.isnan().any(dim=1)].double()
        centre, variance = finite.mean(dim=0), finite.var(dim=0, correction=0)
        pieces = [piece.mean().sqrt().expand_as(piece) for piece in torch.split(variance, parts)]
        spread = torch.cat(pieces)
        return cls(centre.float(), torch.where(spread > 0, spread, 1.0).float())


class Heads(nn.Module):
    """One head for each target.

    Parameters
    ----------
    targets
        What is predicted; of numbers, what the heads predict are standard deviations from the training mean.
    widths
        Of the vectors of samples and of genes.
    hidden
        Width of a hidden layer; 0 for none.
    """

    def __init__(self, targets: Mapping[str, Target], widths: tuple[int, int], hidden: int) -> None:
        super().__init__()
        self.kinds = {name: target.kind for name, target in targets.items()}
        of_genes = {name: kind == "genes" for name, kind in self.kinds.items()}
        heads = [_head(widths[of_genes[name]], len(target.classes) or 1, hidden) for name, target in targets.items()]
        # by number, since a name may hold what torch does not allow in one
        self.heads = nn.ModuleList(heads)
        for name, width in zip(("sample", "gene"), widths, strict=True):
            self.register_buffer(f"{name}_centre", torch.zeros(width))
            self.register_buffer(f"{name}_spread", torch.ones(width))
        self.register_buffer("level", torch.zeros(len(heads)))
        self.register_buffer("unit", torch.ones(len(heads)))

    def settle(self, targets: Mapping[str, Target], samples: Scale, genes: Scale | None, *, balanced: bool) -> None:
        """Take over scales, and start every head from what is true of the average training sample."""
        state: Any = self
        state.sample_centre, state.sample_spread = samples.centre, samples.spread
        if genes is not None:
            state.gene_centre, state.gene_spread = genes.centre, genes.spread
        for place, target in enumerate(targets.values()):
            known = target.values[target.known]
            last: Any = state.heads[place][-1]
            if target.kind == "regression":
                state.level[place], state.unit[place] = float(known.mean()), float(known.std())
            elif target.kind != "survival":
                weighed = np.bincount(known.astype(np.intp), minlength=len(target.classes))
                weighed = weighed * balance(target, balanced=balanced).numpy()
                last.bias.data.copy_(torch.from_numpy(np.log(weighed / weighed.sum())))

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return logits (n, K) or (n, k, K), numbers (n,) in standard deviations, and log hazards (n,)."""
        state: Any = self
        samples, genes = features
        scaled = (samples - state.sample_centre) / state.sample_spread
        found = {}
        for head, (name, kind) in zip(self.heads, self.kinds.items(), strict=True):
            if kind == "genes":
                found[name] = head((cast("Tensor", genes) - state.gene_centre) / state.gene_spread)
            else:
                found[name] = head(scaled) if kind == "class" else head(scaled).squeeze(-1)
        return found

    def outputs(self, features: Features) -> dict[str, Tensor]:
        """Return what :meth:`forward` does as probabilities, numbers in their own unit, and log hazards."""
        state: Any = self
        found: dict[str, Tensor] = self(features)
        for place, (name, kind) in enumerate(self.kinds.items()):
            if kind in {"class", "genes"}:
                found[name] = found[name].double().softmax(dim=-1)
            elif kind == "regression":
                found[name] = found[name] * state.unit[place] + state.level[place]
        return found


def _head(width: int, n_outputs: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
    last = nn.Linear(hidden or width, n_outputs)
    # nothing but the average is predicted at first, so that the first steps do not disturb the encoder
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class Losses:
    """What predictions cost, as one number over all targets.

    Parameters
    ----------
    heads
        Whose targets they are.
    targets
        With what is known of the samples, or genes, that are trained on.
    class_weights
        ``"balanced"`` or ``None``.
    loss_weights
        By name.
    """

    def __init__(
        self,
        heads: Heads,
        targets: Mapping[str, Target],
        class_weights: str | None,
        loss_weights: Mapping[str, float],
    ) -> None:
        self._heads = heads
        self._weights = {name: float(loss_weights.get(name, 1.0)) for name in targets}
        self._balance = {
            name: balance(target, balanced=class_weights is not None)
            for name, target in targets.items()
            if target.classes
        }

    def __call__(self, features: Features, truth: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of samples, whose targets are ``NaN`` where they are not known.

        A sample or gene with a known label costs its cross-entropy, one with a number its squared error in training
        standard deviations, each averaged over those that are known; those with an outcome cost the negative partial
        likelihood of all of them over the number of events.
        """
        found = self._heads(features)
        state: Any = self._heads
        total = features[0].new_zeros(())
        for place, (name, kind) in enumerate(self._heads.kinds.items()):
            predicted, true = found[name].float(), truth[name]
            if kind == "survival":
                loss = _cox(predicted, true)
            elif kind == "regression":
                known = ~true.isnan()
                error = predicted[known] - ((true[known] - state.level[place]) / state.unit[place]).to(predicted)
                loss = error.square().sum() / known.sum().clamp(min=1)
            else:
                absent = features[1].isnan().any(dim=-1) if kind == "genes" and features[1] is not None else None
                loss = self._cross_entropy(name, predicted, true, absent)
            total = total + self._weights[name] * loss
        return total

    def _cross_entropy(self, name: str, predicted: Tensor, true: Tensor, absent: Tensor | None) -> Tensor:
        known = ~true.isnan()
        if absent is not None:
            true, known = true.expand(predicted.shape[:-1]), known & ~absent
        codes, weights = true[known].long(), self._balance[name].to(predicted.device)
        costs = functional.cross_entropy(predicted[known], codes, reduction="none")
        own = weights[codes]
        return (own * costs).sum() / own.sum().clamp(min=1e-12)


def balance(target: Target, *, balanced: bool) -> Tensor:
    """Return the weight of each class, (K,): 1, or such that all classes weigh the same and samples 1 on average."""
    codes = target.values[target.known].astype(np.intp)
    counts = np.bincount(codes, minlength=len(target.classes)).clip(min=1)
    return torch.from_numpy(len(codes) / (len(counts) * counts) if balanced else np.ones(len(counts))).float()


def _cox(log_hazard: Tensor, outcome: Tensor) -> Tensor:
    """Return the negative partial likelihood (Efron's ties) of samples over the number of events."""
    known = ~outcome[:, 0].isnan()
    loss: Tensor = _PartialLikelihood.apply(log_hazard[known], outcome[known])
    return loss


class _PartialLikelihood(torch.autograd.Function):
    """That of :mod:`bulkformer_tl.metrics`, which comes with its gradient."""

    @staticmethod
    def forward(ctx: Any, log_hazard: Tensor, outcome: Tensor) -> Tensor:
        time, event = outcome.detach().cpu().double().numpy().T
        events = event == 1
        numbers = log_hazard.detach().cpu().double().numpy()
        if not events.any() or not np.isfinite(numbers).all():
            ctx.save_for_backward(torch.zeros_like(log_hazard))
            return log_hazard.new_tensor(0.0 if np.isfinite(numbers).all() else np.nan)
        loss, gradient = partial_likelihood(numbers, time, events, np.zeros(len(time), dtype=np.intp))
        ctx.save_for_backward(torch.from_numpy(gradient / events.sum()).to(log_hazard))
        return log_hazard.new_tensor(loss / events.sum())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (own,) = ctx.saved_tensors
        return gradients[0] * own, None
