"""Positive-random-feature attention (FAVOR+) over blocks of tokens: the numbers of performer-pytorch, in less memory.

Attention of one sample has two halves. Keys and values enter through sums over all tokens, which are small; queries
read these sums, each for itself. So both halves go through the tokens in blocks, and nothing as wide as the random
features is kept: the backward pass computes the features of a block again, which costs one small product and one
exponential.

Performer's features of a vector x (E,) under projections P (M, E) are, up to a factor that cancels,
``exp(P x' - |x'|^2 / 2 - s) + 1e-4`` with ``x' = x / E^(1/4)`` and a stabiliser s, a constant of the backward pass.
For a query s is the maximum of its ``P x'``. For keys it is the maximum over all tokens, which is known only at the
end: a running maximum takes its place, and what was summed before is scaled down whenever it grows. The small constant
is no part of what is scaled, so its share is added when the maximum is final.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Added to each feature by performer-pytorch, after the exponential.
EPSILON = 1e-4
#: Far below what float32 sees beside EPSILON; keeps denormal numbers, which are slow, out of the products.
TINY = 1e-30


def attention(queries: Tensor, keys: Tensor, values: Tensor, projection: Tensor, *, block: int) -> Tensor:
    """Attend from queries (R, H, E) to keys and values (T, H, E) of one sample: (R, H, E).

    Parameters
    ----------
    queries, keys, values
        Rows may differ in number between queries and keys.
    projection
        Random projections (M, E); no gradient.
    block
        Tokens of which the features exist at a time.
    """
    return attend(queries, key_value_sums(keys, values, projection, block=block), projection, block=block)


def key_value_sums(keys: Tensor, values: Tensor, projection: Tensor, *, block: int) -> Tensor:
    """Sum features times values over all tokens, (H, M, E + 1); the last column sums the features alone."""
    sums: Tensor = _KeyValueSums.apply(keys, values, projection, block)
    return sums


def attend(queries: Tensor, sums: Tensor, projection: Tensor, *, block: int) -> Tensor:
    """Read the sums of the keys and values with queries (R, H, E): (R, H, E)."""
    read: Tensor = _Attend.apply(queries, sums, projection, block)
    return read


def _exponents(x: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Return P x' (H, T, M) and |x'|^2 / 2 (H, T, 1) of x (H, T, E)."""
    scale = x.shape[-1] ** -0.25
    dash = (x.flatten(0, 1) @ (scale * projection).to(x).T).view(*x.shape[:2], -1).to(_wide(x))
    return dash, x.to(dash).square().sum(dim=-1, keepdim=True).mul_(scale**2 / 2)


def _wide(x: Tensor) -> torch.dtype:
    """Exponentials and sums over tokens are at least float32, whatever the products are made in."""
    return torch.promote_types(x.dtype, torch.float32)


def _exponential(dash: Tensor, half: Tensor, stabiliser: Tensor) -> Tensor:
    return dash.sub_(half + stabiliser).exp_().clamp_(min=TINY)


def _through_exponents(gradient: Tensor, x: Tensor, projection: Tensor) -> Tensor:
    """Take a gradient of the exponents (H, T, M) to x (H, T, E)."""
    scale = x.shape[-1] ** -0.25
    total = gradient.sum(dim=-1, keepdim=True)
    inward: Tensor = (gradient.to(x).flatten(0, 1) @ (scale * projection).to(x)).view_as(x)
    return inward.sub_((total * scale**2).to(x) * x)


def _heads_first(x: Tensor, start: int, block: int) -> Tensor:
    return x[start : start + block].transpose(0, 1).contiguous()


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


class _KeyValueSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, values: Tensor, projection: Tensor, block: int) -> Tensor:
        tokens, heads, width = keys.shape
        sums = keys.new_zeros(heads, len(projection), width + 1, dtype=_wide(keys))
        total = sums.new_zeros(heads, 1, width + 1)
        stabiliser = sums.new_full((heads, 1, 1), -torch.inf)
        with torch.autocast(keys.device.type, enabled=False):
            for start in range(0, tokens, block):
                k, v = _heads_first(keys, start, block), _with_ones(_heads_first(values, start, block))
                dash, half = _exponents(k, projection)
                larger = torch.maximum(stabiliser, dash.amax(dim=-1, keepdim=True).amax(dim=1, keepdim=True))
                sums.mul_((stabiliser - larger).exp_())
                stabiliser = larger
                sums += _exponential(dash, half, stabiliser).to(v).mT @ v
                total += v.sum(dim=1, keepdim=True)
        ctx.save_for_backward(keys, values, projection, stabiliser)
        ctx.block = block
        return sums.add_(total, alpha=EPSILON)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, projection, stabiliser = ctx.saved_tensors
        to_keys, to_values = torch.empty_like(keys), torch.empty_like(values)
        gradient = gradient.to(keys)
        constant = EPSILON * gradient[..., :-1].sum(dim=1, keepdim=True)
        with torch.autocast(keys.device.type, enabled=False):
            for start in range(0, len(keys), ctx.block):
                k, v = _heads_first(keys, start, ctx.block), _with_ones(_heads_first(values, start, ctx.block))
                grown = _exponential(*_exponents(k, projection), stabiliser)
                rows = slice(start, start + ctx.block)
                to_values[rows] = (grown.to(v) @ gradient[..., :-1]).add_(constant).transpose(0, 1)
                to_keys[rows] = _through_exponents(grown.mul_(v @ gradient.mT), k, projection).transpose(0, 1)
        return to_keys, to_values, None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, sums: Tensor, projection: Tensor, block: int) -> Tensor:
        read, weights = torch.empty_like(queries), queries.new_empty(*queries.shape[:2], 1, dtype=_wide(queries))
        with torch.autocast(queries.device.type, enabled=False):
            lowered = sums.to(queries)
            constant = EPSILON * sums.sum(dim=1, keepdim=True)
            for start in range(0, len(queries), block):
                dash, half = _exponents(_heads_first(queries, start, block), projection)
                grown = _exponential(dash, half, dash.amax(dim=-1, keepdim=True))
                wide = (grown.to(lowered) @ lowered + constant).transpose(0, 1)
                rows = slice(start, start + block)
                read[rows] = wide[..., :-1] / wide[..., -1:]
                weights[rows] = wide[..., -1:]
        ctx.save_for_backward(queries, sums, projection, read, weights)
        ctx.block = block
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, sums, projection, read, weights = ctx.saved_tensors
        to_queries, to_sums = torch.empty_like(queries), torch.zeros_like(sums)
        total = sums.new_zeros(sums.shape[0], 1, sums.shape[-1])
        with torch.autocast(queries.device.type, enabled=False):
            lowered = sums.to(queries)
            for start in range(0, len(queries), ctx.block):
                rows = slice(start, start + ctx.block)
                # of the quotient of the numerators and the denominator, which are one product
                outer = gradient[rows] / weights[rows]
                inner = (outer * read[rows]).sum(dim=-1, keepdim=True).neg_()
                wide = torch.cat([outer, inner], dim=-1).to(queries).transpose(0, 1).contiguous()
                q = _heads_first(queries, start, ctx.block)
                dash, half = _exponents(q, projection)
                grown = _exponential(dash, half, dash.amax(dim=-1, keepdim=True))
                to_sums += grown.to(wide).mT @ wide
                total += wide.sum(dim=1, keepdim=True)
                to_queries[rows] = _through_exponents(grown.mul_(wide @ lowered.mT), q, projection).transpose(0, 1)
        return to_queries, to_sums.add_(total, alpha=EPSILON), None, None
