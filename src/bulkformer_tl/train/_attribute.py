"""Which genes a prediction of an adapted encoder rests on: integrated gradients, and the same of shuffled weights."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bulkformer_tl.train._backbones import take
from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.train._backbones import Backbone, Inputs
    from bulkformer_tl.train._cohort import Cohort
    from bulkformer_tl.train._finetune_heads import Heads


@dataclass(frozen=True)
class Question:
    """What is explained.

    Parameters
    ----------
    name
        Of the target.
    place
        Of the class, or ``None``: the one that is most probable, or the number that is predicted.
    """

    name: str
    place: int | None

    def score(self, heads: Heads, pooled: Tensor, chosen: Tensor) -> Tensor:
        """Return what is explained of samples, (n,): a logit above the mean of all, a number or a log hazard."""
        found: Tensor = heads((pooled.float(), None))[self.name]
        if heads.kinds[self.name] != "class":
            state: Any = heads
            place = list(heads.kinds).index(self.name)
            scaled: Tensor = found * state.unit[place]
            return scaled
        rows = torch.arange(len(found), device=found.device)
        return found[rows, chosen] - found.mean(dim=1)

    def choose(self, heads: Heads, pooled: Tensor) -> Tensor:
        """Return the class that is explained of each sample, (n,); 0 where there are no classes."""
        if heads.kinds[self.name] != "class":
            return torch.zeros(len(pooled), dtype=torch.int64, device=pooled.device)
        if self.place is not None:
            return torch.full((len(pooled),), self.place, device=pooled.device)
        found: Tensor = heads((pooled.float(), None))[self.name].argmax(dim=1)
        return found


@dataclass(frozen=True)
class Explained:
    """Attributions of samples.

    Parameters
    ----------
    values
        Of the genes of the model, (N, G), 0 where a gene has no say; they add up to ``score`` minus that of the
        baseline, but for ``gap``.
    score
        What is explained, (N,).
    gap
        What the sum misses, (N,), which more steps make smaller.
    chosen
        Class that is explained, (N,).
    """

    values: NDArray[np.float64]
    score: NDArray[np.float64]
    gap: NDArray[np.float64]
    chosen: NDArray[np.intp]


def explain(
    cohort: Cohort,
    way: Backbone,
    heads: Heads,
    question: Question,
    *,
    baseline: Tensor,
    n_steps: int,
    chosen: NDArray[np.intp] | None = None,
    progress: Any,
) -> Explained:
    r"""Attribute the scores of samples to genes by integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365).

    :math:`a_g = (x_g - b_g) \int_0^1 \partial_g f(b + t (x - b))\, dt` by ``n_steps`` points (Gauss and Legendre),
    with the expression x of the sample and b of the baseline; of encoders of tokens x and b are their vectors, and the
    sum over a gene's vector is its attribution.

    Parameters
    ----------
    cohort
        The samples.
    way, heads
        The adapted encoder.
    question
        What is explained.
    baseline
        Expression of the genes of the model that a sample is compared with, (G,); not read by encoders of tokens.
    n_steps
        Points of the integral.
    chosen
        Classes to explain; ``None`` takes what the question says.
    progress
        Called with numbers of samples.
    """
    way.network.eval()
    found: list[tuple[NDArray[np.float64], float, float, int]] = []
    for row in range(len(cohort)):
        batch = take(cohort.inputs, np.array([row]), cohort.device)
        with torch.no_grad():
            pooled = way.vectors(batch, None)[0]
            picked = question.choose(heads, pooled) if chosen is None else torch.tensor(chosen[row : row + 1])
            score = question.score(heads, pooled, picked)
        start = baseline.to(cohort.device)
        own, gap = _of_sample(way, heads, question, batch, baseline=start, picked=picked, n_steps=n_steps)
        found.append((own.double().cpu().numpy(), float(score), gap, int(picked)))
        progress(1)
    values, scores, gaps, classes = zip(*found, strict=True)
    return Explained(np.stack(values), np.array(scores), np.array(gaps), np.array(classes, dtype=np.intp))


def _of_sample(
    way: Backbone, heads: Heads, question: Question, batch: Inputs, *, baseline: Tensor, picked: Tensor, n_steps: int
) -> tuple[Tensor, float]:
    with warnings.catch_warnings():
        # captum asks torch for what newer versions deprecate
        warnings.simplefilter("ignore")
        from captum.attr import IntegratedGradients, LayerIntegratedGradients

    def answer(x: Tensor) -> Tensor:
        return question.score(heads, way.from_values(_repeated(batch, len(x)), x), picked.expand(len(x)))

    x, start, layer = way.path(batch, baseline)
    method = IntegratedGradients(answer) if layer is None else LayerIntegratedGradients(answer, layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own, gap = method.attribute(
            x, baselines=start, n_steps=n_steps, internal_batch_size=1, return_convergence_delta=True
        )
    return way.to_genes(batch, own.detach()), float(gap)


def _repeated(batch: Inputs, n: int) -> Inputs:
    return {name: tensor.expand(n, *tensor.shape[1:]) for name, tensor in batch.items()}


def shuffled(way: Backbone, heads: Heads, seed: int) -> tuple[Backbone, Heads]:
    """Return copies in which the entries of every weight have been put in another order.

    Weights are what training found, and numbers of a checkpoint that it does not train, such as the linear models of
    ``bulkformer-mini``; positions are left alone.

    Parameters
    ----------
    way, heads
        The adapted encoder.
    seed
        Of the order.
    """
    refuse_unless(
        getattr(way.network, "quantization_method", None) is None,
        f"{way.model.name} was loaded with rounded weights, which are not shuffled; load it without quantize=",
    )
    other, others = way.on(copy.deepcopy(way.network)), copy.deepcopy(heads)
    generator = torch.Generator().manual_seed(seed)
    # loading them drops what a network has worked out of the old ones
    state = other.network.state_dict()
    other.network.load_state_dict({name: _shuffled(tensor, generator) for name, tensor in state.items()})
    for weight in others.parameters():
        weight.data.copy_(_shuffled(weight.data, generator))
    return other, others


def _shuffled(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return the entries in another order; whole numbers are positions, but for those of one byte with a sign."""
    if not weight.is_floating_point() and weight.dtype != torch.int8:
        return weight
    order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
    return weight.flatten()[order].view_as(weight)
