"""From the authors' state dicts to networks: names, sizes, strict loading."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bulkformer_tl.models._families import family_classes, make_config

if TYPE_CHECKING:
    from pathlib import Path

    from bulkformer_tl.models._layers import Encoder

#: Bytes that addresses of weights are multiples of, as those that torch allocates.
ALIGNED = 64
#: What constructors draw weights with.
_DRAWS = {Tensor.normal_, Tensor.uniform_, Tensor.random_}
#: A tensor that only one family has.
_MARKS = {"g1": "ae_enc.0.weight", "g2": "gene_emb_onehot_layer.weight", "g3": "graph_block.residual_scale"}
#: Tensors of the preprint's code that its forward pass never uses.
_UNUSED = re.compile(r"^gb_formers\.\d+\.which_b\.")
#: performer-pytorch's updater holds every tensor of its Performer a second time.
_TWIN = ".proj_updater.instance."


def clean_state(content: Any, path: Path) -> dict[str, Tensor]:
    """Turn what a checkpoint holds into a plain state dict.

    Drops the prefix ``module.``, the second copies of Performer tensors and the preprint's unused tensors.

    Raises
    ------
    ValueError
        If it is not a state dict, or a second copy differs from its twin.
    """
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        message = f"{path} does not hold a state dict (names and tensors), found {_describe(content)}"
        raise ValueError(message)
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    state = {}
    for name, tensor in content.items():
        if _TWIN in name:
            twin = content.get(name.replace(_TWIN, ".net."))
            if twin is None or not torch.equal(twin, tensor):
                message = f"{path} holds {name} twice with different values: it was damaged or put together by hand"
                raise ValueError(message)
        elif not _UNUSED.match(name):
            state[name] = tensor
    return state


def recognise(state: dict[str, Tensor], path: Path) -> tuple[str, Any]:
    """Find a checkpoint's family and read its sizes from the shapes of its tensors.

    Returns
    -------
    The family and its configuration.

    Raises
    ------
    ValueError
        If it is of none of the published generations, or lacks tensors.
    """
    family = next((name for name, mark in _MARKS.items() if mark in state), None)
    if family is None:
        message = f"{path} is of none of the published generations: it has {_describe(state)}"
        raise ValueError(message)
    if family == "g3":
        message = (
            f"{path} is a checkpoint of bulkformer-latest; its sizes stand in other files. Pass the folder with its "
            "six files (model.pt, model_config.json, gene_vocab.csv, edge_index.pt, edge_weight.pt, manifest.json)"
        )
        raise ValueError(message)
    try:
        return family, make_config(family, _sizes(family, state))
    except (KeyError, IndexError) as error:
        message = f"{path} looks like family {family!r} but lacks {error}"
        raise ValueError(message) from error


def _sizes(family: str, state: dict[str, Tensor]) -> dict[str, int]:
    table = state["gene_emb" if family == "g1" else _MARKS["g2"]]
    (dim,) = state["layernorm.weight"].shape
    projection = state["gb_formers.0.f.0.net.layers.0.0.fn.fast_attention.projection_matrix"]
    sizes = {
        "n_genes": table.shape[0],
        "dim": dim,
        "heads": dim // projection.shape[1],
        "n_blocks": _count(state, r"^gb_formers\.(\d+)\."),
        "n_performers": _count(state, r"^gb_formers\.0\.f\.(\d+)\."),
    }
    return sizes | ({"protein_dim": table.shape[1]} if family == "g1" else {})


def _count(state: dict[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def build(family: str, config: Any, state: dict[str, Tensor], path: Path) -> Encoder:
    """Make a network and give it a state dict, strictly.

    Names and shapes are compared before anything is allocated.

    Raises
    ------
    ValueError
        If a tensor is missing, unknown or of another shape or kind.
    """
    _, network_class = family_classes(family)
    # the constructor draws random numbers that the state dict replaces
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"), _NoDraws():
            network = network_class(config)
        expected = network.state_dict()
        _compare(expected, state, family, path)
        state = {name: _own(tensor, expected[name].dtype) for name, tensor in state.items()}
        network.load_state_dict(state, strict=True, assign=True)
        if any(buffer.is_meta for buffer in network.buffers()):
            # constants that a constructor computes are in no state dict
            network = network_class(config)
            network.load_state_dict(state, strict=True)
    return network


class _NoDraws(TorchFunctionMode):
    """Leave weights as they are instead of drawing them: large models would draw for a second, to no end."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in _DRAWS else func(*args, **(kwargs or {}))


def _own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # safetensors hands out parts of the file, which is mapped into memory and read where it is used; at odd addresses
    # matrix products round differently
    if tensor.dtype == dtype and tensor.is_contiguous() and tensor.data_ptr() % ALIGNED == 0:
        return tensor
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _compare(expected: dict[str, Tensor], state: dict[str, Tensor], family: str, path: Path) -> None:
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unknown:
        message = (
            f"{path} does not fit a {family!r} network: {len(missing)} tensors are missing {missing[:3]} and "
            f"{len(unknown)} unknown {unknown[:3]}; it is of another generation"
        )
        raise ValueError(message)
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            message = f"{path}: {name} has shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            raise ValueError(message)
        if tensor.is_floating_point() != state[name].is_floating_point():
            message = f"{path}: {name} is of {state[name].dtype} instead of {tensor.dtype}"
            raise ValueError(message)


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"{len(content)} entries {[str(key) for key in content][:4]}"
    return type(content).__name__
