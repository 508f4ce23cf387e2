"""From the Python that messages of the package propose to options of the command."""

from __future__ import annotations

import ast
import re
import shlex

#: Functions whose work an option asks for, with that option.
_ASKED_BY = {
    "pp.log_tpm": "--counts",
    "pp.to_log_tpm": "",
    "pp.merge_duplicates": "--merge-duplicates",
    "pp.align_genes": "--align",
    "tl.embed": "",
}
#: Arguments that are called otherwise here; those named in code are options under their own name.
_OTHERWISE = {"vocabulary": "model"}
_ARGUMENTS = (
    "default_length", "denominator", "device", "decimal", "encoding", "genes", "graph", "identifiers", "key_added",
    "layer", "lengths", "min_coverage", "min_samples", "n_neighbors", "orientation",
    "pooling", "pseudocount", "strandedness", "thousands", "tx2gene", "unit",
    "vocabulary",
)  # fmt: skip

_CALL = re.compile(
    r"(?P<verb>\b[Cc]all )?(?P<tick>`?)(?:adata = )?bf\.(?P<name>(?:pp|tl|models)\.\w+)(?P<arguments>\([^()]*\))?`?"
    r"(?P<first> first)?"
)
_ARGUMENT = re.compile(rf"\b({'|'.join(_ARGUMENTS)})=('[^']*'|\"[^\"]*\"|\([^()]*\)|[\w.]*\w)?")
_OUTPUT = re.compile(r"output=bf\.tl\.ZarrOutput\('[^']*', (\w+=True)\)")
_SWITCHES = {"resume=True": "--resume", "overwrite=True": "--force"}
_NAMES = re.compile(r"\b(key_added|min_coverage|min_samples|n_neighbors|default_length)\b")


def translate(message: str) -> str:
    """Return a message with options where it names calls, arguments or ``adata``."""
    text = _OUTPUT.sub(r"\1", message)
    for argument, option in _SWITCHES.items():
        text = text.replace(argument, option)
    text = _CALL.sub(_call, text)
    text = _ARGUMENT.sub(lambda found: _option(found[1], found[2]), text)
    text = _NAMES.sub(lambda found: _option(found[1], None), text)
    text = re.sub(r"\badata\.(?=[a-zA-Z])", "", text)
    return re.sub(r"\badata\b", "the data", text)


def _call(found: re.Match[str]) -> str:
    name, arguments = found["name"], found["arguments"] or "()"
    verb = found["verb"]
    if name == "pp.diagnose":
        return f"{'run ' if verb else ''}`bulkformer diagnose FILE`"
    if name == "models.download":
        return f"{'run ' if verb else ''}`bulkformer models get {arguments.strip('()').strip(chr(39)) or 'NAME'}`"
    if name == "models.load":
        return "--model"
    options = options_of(f"bf.{name}{arguments}")
    if options is None:
        return found[0]
    words = shlex.join(options) or "--unit UNIT"
    return f"{'pass ' if verb else ''}{words}"


def options_of(statement: str) -> list[str] | None:
    """Return the options that do what a proposed Python statement does, ``None`` where there are none.

    Parameters
    ----------
    statement
        One statement, as :attr:`bulkformer_tl.pp.diagnose` proposes it.
    """
    try:
        node = ast.parse(statement.strip()).body[0]
    except (SyntaxError, IndexError):
        return None
    value = node.value if isinstance(node, ast.Expr | ast.Assign) else None
    if value is not None and ast.unparse(value) == "adata.T":
        # files are turned while they are read
        return []
    if not isinstance(value, ast.Call):
        return None
    function = ast.unparse(value.func).removeprefix("bf.")
    if function not in _ASKED_BY:
        return None
    options = [_ASKED_BY[function]] if _ASKED_BY[function] else []
    for keyword in value.keywords:
        if keyword.arg is None or not isinstance(keyword.value, ast.Constant):
            return None
        given = keyword.value.value
        name = _OTHERWISE.get(keyword.arg, keyword.arg)
        options += [f"--{name.replace('_', '-')}", name.upper() if given is ... else str(given)]
    return options


def _option(name: str, value: str | None) -> str:
    option = f"--{_OTHERWISE.get(name, name).replace('_', '-')}"
    if value is None:
        return option
    words = value.strip("()").split(", ") if value.startswith("(") else [value]
    return shlex.join([option, *(word.strip("'\"") for word in words)])
