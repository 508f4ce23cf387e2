"""The families of networks; each has its own file, imported when it is needed."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkformer_tl.models._layers import Encoder

#: Family -> file, configuration class and network class.
FAMILIES: dict[str, tuple[str, str, str]] = {
    "g1": ("_preprint", "PreprintConfig", "PreprintNetwork"),
    "g2": ("_paper", "PaperConfig", "PaperNetwork"),
    "g3": ("_latest", "LatestConfig", "LatestNetwork"),
    "mini": ("_mini", "MiniConfig", "MiniNetwork"),
    "bioformer": ("_bioformer", "BioformerConfig", "BioformerNetwork"),
    "bioformer-bert": ("_bioformer_bert", "BioformerBertConfig", "BioformerBertNetwork"),
}

#: Families that read bins; they have a model object of their own.
BINNED = ("bioformer", "bioformer-bert")

#: What the authors state of each generation, and their files do not say.
PUBLISHED: dict[str, dict[str, Any]] = {
    "g1": {"denominator": "all", "default_pooling": "max", "trained_missing": (0.15, 0.15)},
    "g2": {"denominator": "all", "default_pooling": "mean", "trained_missing": (0.15, 0.15)},
    "g3": {
        "denominator": "vocabulary",
        "default_pooling": "mean",
        "pooling_observed_only": True,
        "trained_missing": (0.05, 0.15),
    },
}


def family_classes(family: str) -> tuple[type[Any], type[Encoder]]:
    """Return the configuration class and the network class of a family.

    Raises
    ------
    ValueError
        If there is no such family.
    """
    if family not in FAMILIES:
        message = f"there is no family {family!r}; the families are {list(FAMILIES)}"
        raise ValueError(message)
    file, config, network = FAMILIES[family]
    module = importlib.import_module(f"bulkformer_tl.models.{file}")
    return getattr(module, config), getattr(module, network)


def make_config(family: str, values: dict[str, Any]) -> Any:
    """Make a family's configuration from plain values.

    Raises
    ------
    ValueError
        If a field is unknown or one without a default is absent.
    """
    config_class, _ = family_classes(family)
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(set(values) - known):
        message = f"the configuration has the unknown fields {unknown}; a {family!r} network has {sorted(known)}"
        raise ValueError(message)
    try:
        return config_class(**values)
    except TypeError as error:
        message = f"the configuration of a {family!r} network is incomplete: {error}"
        raise ValueError(message) from error
