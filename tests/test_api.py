"""The public functions keep the rules that docs/how-our-functions-behave.md promises."""

from __future__ import annotations

import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import bulkformer_tl as bf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

SPACES: dict[str, ModuleType] = {
    name: getattr(bf, name) for name in ("pp", "tl", "pl", "datasets", "metrics", "models", "train")
}
#: Tasks may have thirteen parameters: seven are what every task takes beside ``adata``.
TASKS = {
    "tl.attribute",
    "tl.biomarkers",
    "tl.differential_expression",
    "tl.drug_response",
    "tl.essentiality",
    "tl.finetune",
    "tl.network",
    "tl.perturb",
    "tl.perturbation_response",
    "tl.survival",
}
#: Parameters that do not count towards the ten.
COMMON = {"copy", "rng", "key_added", "device", "batch_size"}
API_PAGE = Path(__file__).parents[1] / "docs" / "api.md"
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

PROMISED = {
    "pp": {"align_genes", "diagnose", "hide", "log_tpm", "merge_duplicates", "to_log_tpm"},
    "tl": {"embed", "gene_embeddings", "impute"},
    "pl": {"coverage", "imputation"},
    "datasets": {"toy"},
    "metrics": {"Protocol", "cross_validate"},
    "models": {"available", "convert", "load"},
    "train": {"PretrainConfig", "pretrain"},
}


def members(*spaces: str) -> list[Any]:
    """List what some namespaces export, as pytest parameters."""
    names = [(space, name) for space in spaces for name in SPACES[space].__all__]
    return [pytest.param(getattr(SPACES[space], name), id=f"{space}.{name}") for space, name in names]


def functions(*spaces: str) -> list[Any]:
    return [param for param in members(*spaces) if inspect.isfunction(param.values[0])]


def callables() -> list[Any]:
    """List every public function, and constructor and method of every public class."""
    found = []
    for param in members(*SPACES):
        thing = param.values[0]
        if inspect.isfunction(thing):
            found.append(param)
        elif inspect.isclass(thing) and not issubclass(thing, BaseException):
            found += [pytest.param(method, id=f"{param.id}.{name}") for name, method in methods(thing)]
    return found


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)
    for first in ("self", "cls"):
        found.pop(first, None)
    return found


def sections(docstring: str) -> dict[str, list[str]]:
    """Split a numpydoc docstring into its sections, each a list of lines; the text before them is ``""``."""
    lines = inspect.cleandoc(docstring).splitlines()
    heads = [i for i, line in enumerate(lines[1:]) if re.fullmatch(r"-{3,}", line.strip()) and lines[i].strip()]
    ends = [*heads, len(lines)]
    found = {"": lines[: ends[0]]}
    for head, end in pairwise(ends):
        found[lines[head].strip()] = lines[head + 2 : end]
    return found


def described(lines: list[str]) -> dict[str, str]:
    """Return the entries of a Parameters section and their indented text."""
    entries: dict[str, str] = {}
    name = ""
    for line in lines:
        if line and not line[0].isspace():
            name = line
            entries[name] = ""
        elif line.strip():
            entries[name] += f" {line.strip()}"
    return entries


def test_parser_copes_without_sections():
    assert sections("Do it.") == {"": ["Do it."]}


def test_parser_reads_numpydoc():
    text = """Do it.

    More.

    Parameters
    ----------
    adata
        Samples by genes.
    layer
        Where,
        exactly.

    Returns
    -------
    Nothing.
    """
    found = sections(text)
    assert set(found) == {"", "Parameters", "Returns"}
    assert described(found["Parameters"]) == {"adata": " Samples by genes.", "layer": " Where, exactly."}


def test_package_lists_its_namespaces():
    assert bf.__all__ == sorted(bf.__all__)
    assert dir(bf) == bf.__all__
    assert {*SPACES, "settings"} <= set(bf.__all__)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bf.nothing


@pytest.mark.parametrize("space", SPACES)
def test_all_is_sorted_and_true(space):
    module = SPACES[space]
    assert list(module.__all__) == sorted(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert set(module.__all__) >= PROMISED[space]


@pytest.mark.parametrize("thing", members(*SPACES))
def test_public_things_have_a_summary(thing):
    first = inspect.cleandoc(thing.__doc__ or "").split("\n")[0]
    assert first.endswith("."), "the docstring starts with one sentence on one line"


#: What draws or reads something else than samples.
NOT_OF_SAMPLES = {"pl.training"}


@pytest.mark.parametrize("function", [p for p in functions("pp", "tl", "pl") if p.id not in NOT_OF_SAMPLES])
def test_adata_comes_first(function):
    first = next(iter(parameters(function).values()))
    # what takes nothing but several modalities says so
    assert first.name == ("mdata" if first.annotation == "MuData" else "adata")
    assert first.annotation in {"AnnData", "AnnData | Sequence[AnnData]", "MuData"}


@pytest.mark.parametrize("function", functions("pp", "tl", "pl", "datasets"))
def test_at_most_one_more_is_positional(function):
    found = parameters(function).values()
    positional = [p.name for p in found if p.kind in POSITIONAL and p.name not in {"adata", "mdata"}]
    assert len(positional) <= 1, positional
    assert not any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in found)


@pytest.mark.parametrize("function", callables())
def test_booleans_are_keyword_only(function):
    wrong = [p.name for p in parameters(function).values() if p.kind in POSITIONAL and isinstance(p.default, bool)]
    assert wrong == []


@pytest.mark.parametrize("function", callables())
def test_at_most_ten_parameters(function, request):
    counted = set(parameters(function)) - COMMON
    assert len(counted) <= (13 if request.node.callspec.id in TASKS else 10), sorted(counted)


@pytest.mark.parametrize("function", callables())
def test_everything_is_annotated(function):
    bare = [p.name for p in parameters(function).values() if p.annotation is inspect.Parameter.empty]
    assert bare == []
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("function", functions("pp", "tl"))
def test_copy_marks_functions_that_write(function):
    copy = parameters(function).get("copy")
    returns = inspect.signature(function).return_annotation
    if copy is None:
        assert "None" not in returns, "without copy a function returns what it made"
    else:
        assert (copy.kind, copy.default) == (inspect.Parameter.KEYWORD_ONLY, False)
        assert returns in {"AnnData | None", "MuData | None"}


@pytest.mark.parametrize("function", functions("pl", "datasets", "models"))
def test_others_have_no_copy(function):
    assert "copy" not in parameters(function)


#: Of ``pl``, what only names colours.
DRAW_NOTHING = {"pl.palette"}


@pytest.mark.parametrize("function", [param for param in functions("pl") if param.id not in DRAW_NOTHING])
def test_plots_take_and_return_axes(function):
    ax = parameters(function)["ax"]
    assert ax.annotation == "Axes | None"
    assert ax.default is None
    assert inspect.signature(function).return_annotation == "Axes"


@pytest.mark.parametrize("function", callables())
def test_parameters_are_documented(function):
    documented = described(sections(function.__doc__ or "").get("Parameters", []))
    assert list(documented) == list(parameters(function)), "same names in the same order, without types"
    assert [name for name, text in documented.items() if not text] == []


@pytest.mark.parametrize("function", callables())
def test_results_are_documented(function):
    doc = function.__doc__ or ""
    # what takes nothing can say in one sentence what it returns
    said = not parameters(function) and doc.startswith("Return ")
    if inspect.signature(function).return_annotation != "None" and not said:
        assert {"Returns", "Yields"} & set(sections(doc))


@pytest.mark.parametrize("thing", [param for param in members(*SPACES) if inspect.isclass(param.values[0])])
def test_constructors_are_documented(thing):
    documented = described(sections(thing.__doc__ or "").get("Parameters", []))
    assert list(documented) == list(parameters(thing))


@pytest.mark.parametrize("name", [param.id for param in members(*SPACES)])
def test_docs_list_everything(name):
    assert f"   {name}\n" in API_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", type(bf.settings).model_fields)
def test_docs_list_every_setting(name):
    assert f"settings.{name}\n" in API_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("function", functions("pp", "tl"))
def test_written_slots_are_documented(function):
    if "copy" in parameters(function):
        text = " ".join(sections(function.__doc__ or "")["Returns"])
        assert re.search(r"``[am]data\.(obs|var|obsm|varm|layers|uns|varp)\[", text), "names each field it sets"
