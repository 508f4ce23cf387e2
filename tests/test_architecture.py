"""The house keeps its shape: layers, import cost, lengths."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "bulkformer_tl"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(path for folder in ("benchmarks", "examples", "training") for path in (ROOT / folder).rglob("*.py"))

#: Of our own, what each layer may import besides itself.
EVERYONE = {"_optional", "_progress", "_settings", "_unfinished"}
LAYERS = {
    "_settings": set(),
    "_progress": set(),
    "_optional": set(),
    "_unfinished": set(),
    "_keys": set(),
    "_kept_files": set(),
    "_anndata": {"_keys"},
    "_edges": {"_anndata"},
    "_dictionaries": set(),
    "_modalities": set(),
    "_vocabulary": {"registry"},
    "_rank_vocabulary": {"_dictionaries", "_vocabulary"},
    "_turned": set(),
    "_read": {"_anndata", "_vocabulary"},
    "registry": set(),
    "encodings": set(),
    "metrics": set(),
    "models": {"encodings", "registry", "_vocabulary", "_rank_vocabulary", "_dictionaries", "_modalities"},
    "datasets": {"registry", "_vocabulary"},
    "pp": {"encodings", "registry", "_vocabulary", "_rank_vocabulary", "_anndata", "_keys", "_modalities", "_turned"},
    "tl": {
        *{"pp", "models", "train", "encodings", "metrics", "registry"},
        *{"_anndata", "_edges", "_kept_files", "_keys", "_vocabulary", "_modalities"},
    },
    "train": {
        *{"models", "encodings", "metrics", "registry"},
        *{"_anndata", "_kept_files", "_keys", "_vocabulary", "_rank_vocabulary", "_modalities", "_turned"},
    },
    "pl": {"metrics", "_anndata", "_edges", "_keys"},
    "cli": {"_read", "tl", "pp", "train", "models", "registry"},
}

#: Of others', what a layer never imports, not even inside a function.
TENSORS = {"torch", "torch_geometric", "performer_pytorch", "lightning"}
FORBIDDEN = {
    "models": {"anndata", "scanpy", "muon", "mudata", "matplotlib"},
    "datasets": TENSORS,
    "encodings": TENSORS | {"anndata", "scanpy", "matplotlib"},
    "metrics": TENSORS | {"anndata", "scanpy", "matplotlib"},
    "pl": TENSORS,
    "pp": TENSORS,
    "_read": TENSORS,
    "registry": TENSORS | {"anndata", "scanpy", "matplotlib"},
}

HEAVY = ["torch", "scanpy", "sklearn", "scipy.stats", "lightning", "matplotlib.pyplot"]


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything imported, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_layers(tree: ast.AST) -> set[str]:
    return {name.split(".")[1] for name in imports(tree) if name.startswith("bulkformer_tl.")}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=relative)
each_file = pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=relative)


def test_imports_are_found_wherever_they_stand():
    code = (
        "def f():\n    from bulkformer_tl import tl\n    import bulkformer_tl.pl\nfrom bulkformer_tl._keys import x\n"
    )
    assert own_layers(ast.parse(code)) == {"tl", "pl", "_keys"}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"], ids=relative
)
def test_imports_point_downward(path):
    layer = layer_of(path)
    assert layer in LAYERS, f"the layer {layer!r} is not described in this test"
    assert own_layers(parse(path)) - EVERYONE - {layer} - LAYERS[layer] == set()


@each_module
def test_layers_keep_away_from_foreign_packages(path):
    found = {name.split(".")[0] for name in imports(parse(path))}
    assert found & FORBIDDEN.get(layer_of(path), set()) == set()


@each_module
def test_annotations_are_not_evaluated(path):
    tree = parse(path)
    has_code = any(not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom) for node in tree.body)
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert futures or not has_code or path.name == "__init__.py"


def test_import_loads_nothing_heavy():
    spaces = "import bulkformer_tl.datasets, bulkformer_tl.pl, bulkformer_tl.pp, bulkformer_tl.tl, bulkformer_tl.train"
    code = f"{spaces}, json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_import_leaves_warnings_and_logging_alone():
    code = (
        "import logging, warnings, anndata, tqdm.auto\n"
        "before = list(warnings.filters)\n"
        "import bulkformer_tl.datasets, bulkformer_tl.pl, bulkformer_tl.pp, bulkformer_tl.tl, bulkformer_tl.train\n"
        "assert warnings.filters == before, 'a warning filter was set'\n"
        "assert not logging.getLogger('bulkformer_tl').handlers, 'a log handler was added'\n"
        "assert not logging.getLogger().handlers, 'a root handler was added'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_marker_is_one_constant_of_models():
    """The authors' marker -10 enters networks from one constant; what refuses it in data may spell it too."""
    places = [
        layer_of(path)
        for path in MODULES
        for node in parse(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        if ast.unparse(node.value) in {"-10", "-10.0"}
    ]
    assert places.count("models") == 1
    assert set(places) <= {"models", "encodings"}


@each_file
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@each_file
def test_functions_are_short(path):
    functions = [n for n in ast.walk(parse(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: code_lines(node) for node in functions if code_lines(node) > 60}
    assert long == {}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function from ``def`` to its end, without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines
