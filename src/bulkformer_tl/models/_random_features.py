"""Attention by positive random features (FAVOR+) without gradients, over blocks of genes.

Performer's features of a vector x (E,) under projections P (M, E) are ``exp(P x' - |x'|^2 / 2 - s) + 1e-4``, up to a
factor that cancels, with ``x' = x / E^(1/4)`` and a stabiliser s: for a query the maximum of its ``P x'``, for keys the
maximum over all genes and features. Three things make the same numbers cheap:

- Sums over keys add up in any grouping, so genes come in blocks. The maximum is known at the end only: a running
  maximum takes its place, and what was summed before is scaled down whenever it grows.
- The exponential of a sum is a product. What belongs to a gene as a whole, ``exp(-|x'|^2 / 2 - s)``, is multiplied to
  its value, E + 1 wide, and to what a query reads, instead of being subtracted from its M exponents; and the small
  constant, whose share is a sum over values alone, is added at the end.
- The stabiliser keeps exponentials from overflowing. By the inequality of Cauchy and Schwarz no exponent is larger than
  ``|x'|`` times the longest projection. Where that is below ``SAFE``, ``exp(P x')`` is taken as it is, and s, which
  still weighs the small constant, is the logarithm of the largest.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bulkformer_tl.models._compiled import compiled
from bulkformer_tl.models._linear_attention import EPSILON, TINY

if TYPE_CHECKING:
    from bulkformer_tl.models._engine_options import EngineOptions
    from bulkformer_tl.models._products import Operation

#: Exponents up to here need no stabiliser: neither they, nor their products, leave float32, or become denormal.
SAFE = 40.0


class RandomFeatures:
    """The feature map of a layer.

    Parameters
    ----------
    projection
        Random projections P, (M, E).
    options
        Precision of products, and whether the stabiliser may be left out.
    """

    def __init__(self, projection: Tensor, options: EngineOptions) -> None:
        self.scale = projection.shape[1] ** -0.25
        # float16 has no room for sums over all genes
        self.dtype = torch.float32 if options.dtype == torch.float16 else options.dtype
        self.projection = (self.scale * projection).to(self.dtype)
        self.longest = float(projection.norm(dim=1).max())
        # to look at the bound is cheap where the processor itself waits for it
        self.unshifted = options.unshifted and projection.device.type == "cpu"
        join = partial(torch.compile, backend=compiled, dynamic=True)
        self.grow = join(_grow_joined) if options.compile else _grow
        self.settle = join(_settle) if options.compile else _settle

    def __call__(self, x: Tensor, *, together: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Take vectors x (H, T, E) apart; genes come last in what is returned, where processors like them best.

        Parameters
        ----------
        x
            Queries or keys, in the precision of products.
        together
            Whether all vectors of a head have one maximum, (H, 1, 1), as keys, or each its own, (H, 1, T).

        Returns
        -------
        ``exp(P x' - r)`` (H, M, T); the logarithm ``r - |x'|^2 / 2`` of the factor that it lacks (H, 1, T), with r zero
        or the maximum; and that maximum of ``P x'``. The last two are float32.
        """
        exponents = torch.bmm(self.projection.expand(len(x), -1, -1), x.mT)
        half = x.float().square().sum(dim=-1)[:, None].mul_(self.scale**2 / 2)
        if self.unshifted and self.longest * math.sqrt(2 * float(half.max())) < SAFE:
            grown, top = self.grow(exponents, together=together)
            return grown, half.neg_(), top
        exponents = exponents.float()
        top = _largest(exponents, together=together)
        # denormal numbers are slow, and too small to be seen beside the small constant
        grown = exponents.sub_(top).exp_().clamp_(min=TINY).to(self.dtype)
        return grown, top - half, top


def _grow(exponents: Tensor, *, together: bool) -> tuple[Tensor, Tensor]:
    """Return exponentials and the largest exponents."""
    if exponents.dtype == torch.bfloat16:
        # of positive numbers the largest has the largest bits, which is found faster
        grown = exponents.exp_()
        return grown, _largest(grown.view(torch.int16), together=together).view(torch.bfloat16).float().log_()
    top = _largest(exponents, together=together)
    return exponents.exp_(), top


def _grow_joined(exponents: Tensor, *, together: bool) -> tuple[Tensor, Tensor]:
    """Do the same in one go through the exponents, when compiled."""
    wide = exponents.float()
    return wide.exp().to(exponents.dtype), _largest(wide, together=together)


def _settle(read: Tensor, lacking: Tensor, constant: Tensor) -> Tensor:
    """Return numerators over denominators, (H, E, T), of what queries read, (H, E + 1, T), less what all read."""
    whole = read.float().mul_(lacking.exp().clamp_(min=TINY)).add_(constant)
    return (whole[:, :-1] / whole[:, -1:]).sub_(constant[:, :-1] / constant[:, -1:])


def _largest(x: Tensor, *, together: bool) -> Tensor:
    return x.flatten(1).amax(dim=1)[:, None, None] if together else x.amax(dim=1, keepdim=True)


class KeyValueSums:
    """Sums over genes of features times values: all that queries need of keys and values.

    Parameters
    ----------
    features
        Feature map of the layer.
    heads, width
        Heads H, and the width E of each.
    """

    def __init__(self, features: RandomFeatures, heads: int, width: int) -> None:
        self.features = features
        make = partial(torch.zeros, device=features.projection.device)
        # the last row sums the features alone
        self.sums = make(heads, width + 1, len(features.projection))
        self.total = make(heads, width + 1, 1)
        self.top = make(heads, 1, 1).fill_(-torch.inf)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Add genes, (H, T, E) each."""
        grown, lacking, top = self.features(keys, together=True)
        larger = torch.maximum(self.top, top)
        self.sums.mul_((self.top - larger).exp_())
        self.top = larger
        grown *= (lacking - larger).exp_().clamp_(min=TINY).to(grown.dtype)
        self.sums[:, :-1] += (grown @ values).mT
        self.sums[:, -1] += grown.sum(dim=-1, dtype=torch.float32)
        self.total[:, :-1, 0] += values.sum(dim=1, dtype=torch.float32)
        self.total[:, -1] += values.shape[1]

    def finish(self, out: Operation) -> None:
        """Add the share of the small constant, once all genes are in, and take what is common to all queries out."""
        self.sums.add_(self.total, alpha=EPSILON)
        self.constant = EPSILON * self.sums.sum(dim=-1, keepdim=True)
        self.lowered = self.sums.to(self.features.dtype)
        #: What queries read that find all features alike, (H, E), and what the layer makes of it, (D,).
        self.common = self.constant[:, :-1, 0] / self.constant[:, -1:, 0]
        self.shared = out(self.common.flatten())

    def read(self, queries: Tensor) -> Tensor:
        """Return by how much what queries (H, T, E) read differs from ``common``, (H, E, T), float32."""
        grown, lacking, top = self.features(queries, together=False)
        return self.features.settle(self.lowered @ grown, lacking - top, self.constant)
