"""Configuration of the documentation; the build fetches nothing."""

from __future__ import annotations

from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_about = metadata("bulkformer-tl")
project = "bulkformer_tl"
author = "The bulkformer_tl developers"
copyright = author  # the name that sphinx reads
release = version = _about["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx.ext.mathjax",
    # MathJax itself comes with the pages, so that equations show without a network
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "jupyter_execute"]

# the notebooks run at every build, on the package as it lies here
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# types stand in the signatures alone
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Result", "as written")]
always_use_bars_union = True
typehints_defaults = "comma"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_generate = True
add_module_names = False

nitpicky = True
nitpick_ignore = [
    # the three dots of tuple[str, ...]
    ("py:data", "Ellipsis"),
    # named in signatures, made by other functions; users never spell them
    ("py:class", "bulkformer_tl._rank_vocabulary.RankVocabulary"),
    ("py:class", "bulkformer_tl._vocabulary.GeneMatch"),
    ("py:class", "bulkformer_tl._vocabulary.GeneVocabulary"),
    ("py:class", "bulkformer_tl.models._binning.BinReader"),
    ("py:class", "bulkformer_tl.models._layers.Encoder"),
    ("py:class", "bulkformer_tl.pp._report.Report"),
]
nitpick_ignore_regex = [
    # no inventory of another project is fetched, so their names have no page to point to
    (r"py:.*", r"(anndata|collections|matplotlib|mudata|muon|networkx|numpy|pandas|pathlib|scipy|torch|typing)\..*"),
]

templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_title = "bulkformer_tl"
html_theme_options = {"navbar_persistent": [], "show_toc_level": 2}
html_copy_source = False
html_show_sourcelink = False


def keep_returns(*event: Any) -> None:
    """Give ``Returns`` a title that no extension parses: it is prose and a definition list of fields, not a type."""
    lines: list[str] = event[-1]
    for i, line in enumerate(lines[1:], start=1):
        if lines[i - 1] == "Returns" and line.startswith("---"):
            lines[i - 1] = "Result"


def setup(app: Sphinx) -> None:
    # before napoleon and the type hints
    app.connect("autodoc-process-docstring", keep_returns, priority=400)
