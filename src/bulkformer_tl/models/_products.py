"""Matrix products by constant weights: plain, or packed by oneDNN, in any precision."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bulkformer_tl.models._engine_options import EngineOptions

    Operation = Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Operation] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
#: Rows for which oneDNN chooses the order of weights; any number of them can be multiplied afterwards.
_ROWS = 512


def linear(layer: Any, options: EngineOptions, *, activation: str = "none", bias: bool = True) -> Operation:
    """Make the function of a linear layer on rows, (T, K) to (T, M), and of an activation behind it.

    Parameters
    ----------
    layer
        Holds ``weight`` (M, K) and ``bias`` (M,) or ``None``. They are copied in the precision of products, which is
        also that of what the function returns.
    options
        Precision, and whether weights are packed.
    activation
        ``"none"``, ``"relu"`` or ``"gelu"`` (the exact one).
    bias
        Whether to add the bias, where there is one.
    """
    if options.precision == "int8":
        return _Rounded(
            layer.weight.detach(), layer.bias.detach() if bias and layer.bias is not None else None, activation
        )
    weight = layer.weight.detach().to(options.dtype, copy=True)
    added = layer.bias.detach().to(options.dtype, copy=True) if bias and layer.bias is not None else None
    if options.packed and weight.device.type == "cpu" and packs(options.dtype):
        return _Packed(weight, added, activation)
    return partial(_plain, weight, added, _ACTIVATIONS[activation])


def _plain(weight: Tensor, bias: Tensor | None, activation: Operation, x: Tensor) -> Tensor:
    return activation(F.linear(x.to(weight.dtype), weight, bias))


def chain(modules: Iterable[nn.Module], options: EngineOptions) -> Operation:
    """Make the function of modules in a row, in evaluation: linear layers, activations behind them, and layer norms."""
    left = [module for module in modules if not isinstance(module, nn.Dropout)]
    steps: list[Operation] = []
    while left:
        module = left.pop(0)
        if not isinstance(module, nn.Linear):
            steps.append(module)
        elif module.out_features == 1:
            # a single column costs next to nothing in float32
            steps += [Tensor.float, module]
        else:
            activation = _name(left[0]) if left else "none"
            steps.append(linear(module, options, activation=activation))
            del left[: activation != "none"]
    return partial(_in_turn, steps)


def _name(module: nn.Module) -> str:
    exact = isinstance(module, nn.GELU) and module.approximate == "none"
    return "relu" if isinstance(module, nn.ReLU) else "gelu" if exact else "none"


def _in_turn(steps: list[Operation], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x


@lru_cache
def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN's packed products are here, and give the numbers of plain ones."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator) for size in ((33, 48), (80, 48)))
    bias = torch.randn(80, generator=generator)
    try:
        packed = {name: _Packed(weight.to(dtype), bias.to(dtype), name) for name in _ACTIVATIONS}
        found = {name: multiply(x).float() for name, multiply in packed.items()}
    # operators that are absent or refuse these numbers each have an error of their own
    except (RuntimeError, AttributeError):
        return False
    tolerance = 64 * torch.finfo(dtype).eps
    expected = F.linear(x, weight, bias)
    return all(
        torch.allclose(found[name], _ACTIVATIONS[name](expected), rtol=tolerance, atol=tolerance) for name in found
    )


class _Packed:
    """A product by weights that lie as oneDNN reads them; torch's own compiler writes the same operators."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        self.dtype = weight.dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self.bias = bias
        self.activation = activation
        self.algorithm = "none" if activation == "gelu" else ""

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.to(self.dtype)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.weight, self.bias, self.activation, [], self.algorithm
        )
        return found


class _Rounded:
    """A product by weights of eight bits, one scale for each row, which become float32 for one block at a time."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        self.scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / 127
        self.weight = (weight / self.scale).round().to(torch.int8)
        self.bias = None if bias is None else bias.clone()
        self.activation = _ACTIVATIONS[activation]

    def __call__(self, x: Tensor) -> Tensor:
        return self.activation(F.linear(x, self.weight * self.scale, self.bias))
