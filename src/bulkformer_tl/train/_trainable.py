"""Which weights of a network are trained: none, the last layers, low-rank additions, or all that matter."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bulkformer_tl._optional import require
from bulkformer_tl.train._check import refuse_unless

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from bulkformer_tl.train._backbones import Backbone, Inputs
    from bulkformer_tl.train._finetune_config import FinetuneConfig

#: Part of the names of low-rank additions.
LOW_RANK = "lora_"


def trainable_copy(backbone: Backbone, config: FinetuneConfig, *, seed: int) -> Backbone:
    """Return a copy of the encoder in which what the method trains, and nothing else, asks for gradients.

    Parameters
    ----------
    backbone
        Of the pretrained model, which stays as it is.
    config
        Method, rank and layers.
    seed
        Of the low-rank additions.

    Raises
    ------
    ValueError
        If the model does not have as many layers, or its weights are rounded to 8 or 4 bits and not to be added to.
    ImportError
        If peft is not installed and ``method="lora"``.
    """
    name, method = backbone.model.name, config.method
    rounded = getattr(backbone.network, "quantization_method", None) is not None
    refuse_unless(
        not rounded or method in {"probe", "lora"},
        f"{name} was loaded with rounded weights ({backbone.model.precision}), which cannot be trained themselves; use "
        f"method='lora', or load it without quantize= for method={method!r}",
    )
    other = backbone.on(backbone.network if method == "probe" else copy.deepcopy(backbone.network))
    if method == "probe":
        return other
    trained = dict(other.network.named_parameters())
    able = {key for key, weight in trained.items() if weight.requires_grad}
    for weight in trained.values():
        weight.requires_grad = False
    if method == "lora":
        _add_low_rank(other, config, seed)
    elif method == "freeze":
        layers = other.layers()
        refuse_unless(
            config.layers <= len(layers),
            f"{name} has {len(layers)} layers, and layers={config.layers} are to be trained; pass "
            f"at most {len(layers)}",
        )
        for module in (part for layer in layers[-config.layers :] for part in layer):
            module.requires_grad_()
    else:
        for key in able:
            trained[key].requires_grad = True
    return other


def _add_low_rank(backbone: Backbone, config: FinetuneConfig, seed: int) -> None:
    require("peft", extra="finetune", purpose="method='lora'")
    with warnings.catch_warnings():
        # importing it walks through annotations that newer Pythons deprecate
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        from peft import LoraConfig, inject_adapter_in_model
    made = LoraConfig(
        r=config.rank, lora_alpha=int(config.alpha), lora_dropout=config.lora_dropout, target_modules=backbone.targets()
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(made, backbone.network)
    for key, weight in backbone.network.named_parameters():
        weight.requires_grad_(LOW_RANK in key)


def trained_weights(backbone: Backbone, method: str, one: Inputs, genes: Tensor | None) -> dict[str, nn.Parameter]:
    """Return the weights that ask for gradients and get some from the vectors of a sample; the others stop asking."""
    if method == "probe":
        return {}
    asking = {key: weight for key, weight in backbone.network.named_parameters() if weight.requires_grad}
    pooled, vectors = backbone.vectors(one, genes)
    total = pooled.float().square().sum()
    if vectors is not None:
        total = total + vectors.float().nan_to_num().square().sum()
    found: Any = torch.autograd.grad(total, list(asking.values()), allow_unused=True)
    used = {}
    for (key, weight), gradient in zip(asking.items(), found, strict=True):
        weight.requires_grad_(gradient is not None)
        if gradient is not None:
            used[key] = weight
    return used


@torch.no_grad()
def fill(into: Mapping[str, Tensor], arrays: Mapping[str, NDArray[Any]], *, whole: bool) -> None:
    """Copy arrays into tensors of the same names, all of them if ``whole``.

    Raises
    ------
    ValueError
        If one does not fit.
    """
    wrong = [name for name, array in arrays.items() if name not in into or tuple(into[name].shape) != array.shape]
    absent = sorted(set(into) - set(arrays)) if whole else []
    refuse_unless(
        not wrong and not absent,
        f"the adapter's arrays do not fit the model: {(wrong or absent)[:3]} ({len(wrong or absent)} in all)",
    )
    for name, array in arrays.items():
        into[name].copy_(torch.from_numpy(np.asarray(array, order="C")))
