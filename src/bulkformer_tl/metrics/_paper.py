"""The evaluation of the BulkFormer paper, as far as it is public, as a protocol whose guesses are fields."""

from __future__ import annotations

from typing import Any

from bulkformer_tl.metrics._protocol import Protocol

#: Forest of the authors' public evaluation of October 2026; the paper gives no number for its own.
FOREST: dict[str, Any] = {"n_estimators": 500, "max_depth": 16, "max_features": "sqrt", "min_samples_leaf": 2}
#: A perceptron of common size; the paper gives neither its width nor how it is trained.
PERCEPTRON: dict[str, Any] = {
    "hidden_layer_sizes": (256, 128),
    "solver": "adam",
    "alpha": 1e-4,
    "early_stopping": True,
    "max_iter": 500,
}

LEAK = (
    "the paper's folds are drawn over samples: repeated samples of a person, samples of one study and near-duplicates "
    "stand on both sides, so that scores are too high for samples of another study; pass groups= and compare"
)
PAIRS_LEAK = (
    "the paper's folds are drawn over pairs, so that each test pair's partners were trained on, and a correlation over "
    "all pairs mostly ranks the partners' means; read the scores per drug or per gene, on unseen partners"
)
FOREST_GUESS = (
    "head_options: 500 trees of depth 16, square root of the features, 2 samples in a leaf, as in the authors' "
    "evaluation of October 2026"
)
PERCEPTRON_GUESS = "head_options: two hidden layers of 256 and 128, Adam with early stopping"
COMPONENTS_GUESS = "head_options['n_components']: 50 principal components, fitted inside the fold"
COMMON_GUESSES = ("rng: 42, the seed of the evaluation of October 2026", "stratify: classes are spread over the folds")

_FORESTS: dict[str, Any] = {
    "head": "random_forest",
    "head_options": {"n_components": 50, **FOREST},
    "assumed": (COMPONENTS_GUESS, FOREST_GUESS, *COMMON_GUESSES),
    "caveat": LEAK,
}
_PERCEPTRONS: dict[str, Any] = {
    "head": "mlp",
    "head_options": PERCEPTRON,
    "assumed": (PERCEPTRON_GUESS, COMMON_GUESSES[0]),
    "caveat": PAIRS_LEAK,
}
#: What the paper does, task by task.
TASKS: dict[str, dict[str, Any]] = {
    "classification": _FORESTS,
    "regression": {
        **_FORESTS,
        "assumed": (
            "head: the paper predicts no number of a sample; its classifier, as regression",
            *_FORESTS["assumed"],
        ),
    },
    "survival": {
        **_FORESTS,
        "caveat": "alive or dead at the end of follow-up counts who was followed briefly as alive, and times are "
        f"ignored: it is no measure of prognosis, see the concordance index; and {LEAK}",
    },
    "biomarkers": {
        **_FORESTS,
        "head_options": FOREST,
        "assumed": ("n_splits: 10, as in the other tasks", FOREST_GUESS, COMMON_GUESSES[0]),
        "caveat": "one cut at the median of out-of-fold scores, for thousands of genes: correct for their number; and "
        + LEAK,
    },
    "drug_response": {
        **_PERCEPTRONS,
        "assumed": (
            "folds over pairs of line and drug; the paper says 10 folds and not of what",
            "fingerprints or the features you pass in place of KPGT's",
            *_PERCEPTRONS["assumed"],
        ),
    },
    "essentiality": {
        **_PERCEPTRONS,
        "assumed": (
            "folds over pairs of line and gene; the paper says 10 folds and not of what",
            *_PERCEPTRONS["assumed"],
        ),
    },
    "perturbation_response": {
        **_PERCEPTRONS,
        "assumed": (
            "n_splits: 10 folds over perturbations; the paper took the splits of PRnet",
            "the features you pass, and components of the change in place of a perceptron for each gene",
            *_PERCEPTRONS["assumed"],
        ),
        "caveat": "the authors withdrew this task, since L1000 measures 978 genes on beads and the model learnt from "
        "sequencing",
    },
}


def paper_protocol(task: str) -> Protocol:
    """Return the evaluation of the BulkFormer paper as a protocol.

    Ten folds over samples without groups, scores of all out-of-fold predictions together. Classes of samples: the
    samples' vectors (the paper pools genes by their maximum, ``bf.tl.embed(adata, pooling="max")``), principal
    components, random forest, weighted F1. Alive or dead: the same, AUROC. Drug response, essentiality and response to
    a perturbation: a perceptron on pairs.

    Parameters
    ----------
    task
        ``"classification"``, ``"regression"``, ``"survival"``, ``"biomarkers"``, ``"drug_response"``,
        ``"essentiality"`` or ``"perturbation_response"``.

    Returns
    -------
    A protocol. What the paper does not tell is listed in ``assumed``, and each of it can be changed by
    ``dataclasses.replace``; ``caveat`` says what the numbers must not be taken for. The same object comes of
    ``protocol="paper"`` in a task.

    Raises
    ------
    ValueError
        If the paper has no such task.

    Notes
    -----
    Kang et al. 2026, Cell Systems 17(7):101657, doi:10.1016/j.cels.2026.101657, and its preprint
    doi:10.1101/2025.06.11.659222; neither code nor folds of its tasks are public. Near-duplicates are not kept
    together, as in the paper; our own protocol keeps them together.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import bulkformer_tl as bf
    >>> paper = bf.metrics.paper_protocol("classification")
    >>> paper.n_splits, paper.head, len(paper.assumed)
    (10, 'random_forest', 4)
    >>> fewer = replace(paper, head_options={**paper.head_options, "n_components": 20})
    """
    if task not in TASKS:
        message = f"the paper has no task {task!r}; it has {list(TASKS)}"
        raise ValueError(message)
    return Protocol(n_splits=10, duplicates=None, axis="pooled", rng=42, **TASKS[task])


def resolve_protocol(protocol: Protocol | str | None, task: str) -> Protocol:
    """Return the protocol that a caller means: ours for ``None``, the paper's for ``"paper"``.

    Raises
    ------
    TypeError
        If it is anything else.
    ValueError
        If the paper has no such task.
    """
    if protocol is None:
        return Protocol()
    if isinstance(protocol, Protocol):
        return protocol
    if isinstance(protocol, str) and protocol == "paper":
        return paper_protocol(task)
    message = f'protocol is {protocol!r}; pass a bf.metrics.Protocol, "paper", or None for our own'
    raise TypeError(message)
