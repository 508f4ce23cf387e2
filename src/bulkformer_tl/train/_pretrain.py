"""Pretraining: a corpus of studies to a model, resumed wherever it was interrupted."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._optional import require
from bulkformer_tl._progress import Progress
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._config import FAMILIES, PretrainConfig
from bulkformer_tl.train._corpus import Corpus, Order
from bulkformer_tl.train._masks import MaskMaker
from bulkformer_tl.train._run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.models import Encoder
    from bulkformer_tl.train._batches import Plan
    from bulkformer_tl.train._corpus import CorpusLike
    from bulkformer_tl.train._hardware import Hardware

logger = logging.getLogger(__name__)


def pretrain(
    corpus: CorpusLike,
    config: PretrainConfig | None = None,
    *,
    out: str | Path,
    vocabulary: GeneVocabulary | Sequence[str] | str | Path | None = None,
    graph: tuple[Any, Any] | str | Path | None = None,
    start: Encoder | str | Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    workers: int = 0,
    device: str | None = None,
) -> Encoder:
    r"""Train a network to predict hidden genes, from scratch or from a checkpoint, on studies of your own.

    Of each sample some measured genes are hidden (:class:`Masking`), and the network predicts them from the others.
    With x the expression, ln(TPM+1), of the hidden genes H and :math:`\hat x` the prediction, a sample costs

    .. math::

        \frac{1}{|H|} \sum_{g \in H} (x_g - \hat x_g)^2
        \qquad\text{or}\qquad
        \frac{1}{|H|} \sum_{g \in H} \frac{(x_g - \hat x_g)^2}{2 \sigma_g^2} + \ln \sigma_g + \frac{\ln 2\pi}{2}

    with ``objective="mse"``, as the authors trained, and ``"gaussian_nll"``, where the network also learns
    :math:`\sigma`, which :func:`bulkformer_tl.tl.impute` then reports. With ``family="bioformer"`` the sources hold
    counts, which become bins, and a sample costs the mean cross-entropy of its hidden bins, in nats. With
    ``family="geneformer"`` counts become lists of genes (:func:`bulkformer_tl.pp.rank_value_encode`), and a sample
    costs the mean cross-entropy of its hidden tokens over all tokens; in training 80 % of them are masked, 10 %
    replaced by any other token and 10 % left as they are, and in left-out studies all are masked. Every sample has the
    same weight, however many genes it measures. Whole studies are left out and scored after every
    ``checkpoint_every`` steps, beside the prediction of each gene's training mean (of bins and tokens: of how often
    each occurs); the weights that score best are kept.

    A call with the same arguments resumes a run that was interrupted, at its last checkpoint, and ends with the same
    numbers: order, masks and dropout are functions of the seed and the step. This holds bit for bit on the CPU with
    the same number of threads.

    Parameters
    ----------
    corpus
        One or several AnnData, h5ad files, zarr stores or :class:`Source`. They may measure different genes. A gene
        that a source lacks is missing, unless the source's ``annotation`` says that it was quantified; an entry that
        sparse data do not store is a measured zero.
    config
        What to train and how; ``None`` takes the defaults, a large network.
    out
        Folder to write to: a model that :func:`bulkformer_tl.models.load` reads (a bundle, or a Geneformer as
        published), and below ``training`` the
        configuration, ``history.csv``, TensorBoard logs and, until the run is finished, its checkpoints.
    vocabulary
        Genes of the network, in order: a vocabulary, a file, a model's name, or identifiers. ``None`` takes those of
        ``start``. For a ``"geneformer"`` also genes to medians, as a mapping or a published dictionary (``.json`` or
        ``.pkl``); where there are no medians, they are taken from the training samples in one pass, by a temporary file
        of 8 bytes per sample and gene (``TMPDIR``).
    graph
        Gene graph on the vocabulary: edges (2, E), integer, receivers first, and positive weights (E,), as
        :func:`bulkformer_tl.pp.graph_edges` returns them; or the safetensors file that ``bulkformer graph`` writes.
        ``None`` takes that of ``start``. A ``"bioformer"`` and a ``"geneformer"`` have none.
    start
        A model, its name or folder to go on from, with its vocabulary and graph; ``None`` draws new weights.
    devices
        Processes on this machine, one per GPU, or on the CPU.
    nodes
        Machines.
    strategy
        How processes share the work: ``"ddp"``, each with the whole network; ``"fsdp"``, each with a part of it, which
        this package does not test. ``"auto"`` takes ``"ddp"`` for several processes.
    workers
        Processes that read ahead, for each device. The result does not depend on them. They are new Python processes,
        to which AnnData in memory are copied: a script that asks for them needs ``if __name__ == "__main__":``.
    device
        ``"cpu"``, ``"cuda"``, ...; ``None`` takes :attr:`bulkformer_tl.settings.device`.

    Returns
    -------
    The model with the weights that predicted left-out studies best; also written to ``out``.

    Raises
    ------
    ImportError
        If Lightning is not installed, or transformers for a ``"geneformer"``.
    FileExistsError
        If ``out`` holds something else than a run of this function.
    FileNotFoundError
        If a source is not there.
    KeyError
        If a source lacks the layer or the study column.
    OSError
        If there is no room for the temporary file of the medians.
    ValueError
        If the corpus is empty, a single study, shares no gene with the vocabulary, or is not what the family reads; if
        configuration, vocabulary, graph and ``start`` do not belong together, or a binning or modality; if ``out``
        holds a run that differs from this one; or if the loss was not finite before any validation improved.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> config = bf.train.PretrainConfig(family="g2", network={"dim": 128}, epochs=30, batch_size=32)
    >>> model = bf.train.pretrain(  # doctest: +SKIP
    ...     ["study_a.h5ad", "study_b.h5ad"], config, out="mine", vocabulary="genes.csv", graph=(edges, weights)
    ... )
    """
    require("lightning", extra="train", purpose="pretraining")
    from bulkformer_tl.train._hardware import Hardware
    from bulkformer_tl.train._objectives import OBJECTIVES

    settled = config or PretrainConfig()
    parts = _gather(corpus, settled, vocabulary, graph, start)
    hardware = Hardware.find(device, devices=devices, nodes=nodes, strategy=strategy, workers=workers)
    plan = _plan(settled, int(parts.training.sum()), hardware.world)
    run = Run(Path(out))
    resumed = run.check(settled, parts.facts)
    if run.finished:
        from bulkformer_tl.models import load

        logger.info("%s is finished; its model is loaded", run.out)
        return load(run.out, device=device)
    kind = _kind(settled)
    network = kind.make_network(settled, OBJECTIVES[str(settled.objective)](), parts.corpus, parts.start)
    moments = kind.scan(parts.corpus, parts.training, settled, network, parts.start)
    if not resumed and hardware.is_first:
        run.begin(settled, parts.facts)
    return _train(parts, settled, network, moments, run=run, plan=plan, hardware=hardware)


@dataclass(frozen=True)
class _Parts:
    """What a run is made of."""

    corpus: Corpus
    training: NDArray[np.bool_]
    graph: tuple[Tensor, Tensor] | None
    start: Any
    facts: dict[str, Any]


def _kind(config: PretrainConfig) -> Any:
    """Return the module that does for a family what is its own: network, scan of the corpus, model."""
    if config.family == "geneformer":
        from bulkformer_tl.train import _geneformers

        return _geneformers
    if config.family == "bioformer":
        from bulkformer_tl.train import _bioformers

        return _bioformers
    from bulkformer_tl.train import _network

    return _network


def _gather(corpus: CorpusLike, config: PretrainConfig, vocabulary: Any, graph: Any, start: Any) -> _Parts:
    """Load and check everything that a run is made of."""
    from bulkformer_tl.models import load
    from bulkformer_tl.train._network import as_graph, graph_checksum

    model: Any = load(start, device="cpu") if isinstance(start, str | Path) else start
    if model is not None:
        _check_start(config, model)
        refuse_unless(
            vocabulary is None and graph is None,
            f"vocabulary and graph are those of {model.name}, which training starts from; leave them out",
        )
    graphless = config.family in {"bioformer", "geneformer"}
    refuse_unless(not (graphless and graph is not None), f"a {config.family!r} has no gene graph; leave graph= out")
    refuse_unless(
        model is not None or (vocabulary is not None and (graphless or graph is not None)),
        f"a new network needs vocabulary= (its genes){'' if graphless else ' and graph=(edges, weights)'}; to go on "
        "from a model pass start=",
    )
    genes = _as_vocabulary(vocabulary) if model is None else model.vocabulary
    edges = None
    if not graphless:
        edges = as_graph(graph, config.family, len(genes)) if model is None else model.graph
    opened = Corpus(corpus, genes, _external(config, model))
    facts = {
        "corpus": opened.checksum,
        "graph": None if edges is None else graph_checksum(edges),
        "start": None if model is None else model.checksum,
        "medians": _medians_checksum(genes) if config.family == "geneformer" else None,
    }
    return _Parts(opened, opened.split(config.validation, config.seed), edges, model, facts)


def _medians_checksum(genes: GeneVocabulary) -> str | None:
    return None if genes.medians is None else hashlib.sha256(genes.medians.astype("<f8").tobytes()).hexdigest()


def _check_start(config: PretrainConfig, start: Any) -> None:
    """Refuse a model that cannot be trained on, or what it has already."""
    refuse_unless(
        start.family in FAMILIES,
        f"training goes on from a model of these families, and {start.name} is of family {start.family!r}; only "
        f"{list(FAMILIES)} are pretrained",
    )
    refuse_unless(
        start.family == config.family,
        f"{start.name} is of family {start.family!r}, the configuration of {config.family!r}; pass family="
        f"{start.family!r}",
    )
    for name in ("network", "binning", "external"):
        given = getattr(config, name)
        what = "the sizes of the network are" if name == "network" else f"{name} is"
        refuse_unless(not given, f"{what} that of {start.name}; leave {name}={given} out")


def _as_vocabulary(given: Any) -> GeneVocabulary:
    from bulkformer_tl._rank_vocabulary import SPECIALS, RankVocabulary
    from bulkformer_tl._vocabulary import GeneVocabulary, load_vocabulary, strip_version

    if isinstance(given, Mapping) or (isinstance(given, str | Path) and Path(given).suffix in {".json", ".pkl"}):
        found = RankVocabulary.of(given, specials=SPECIALS)
        return GeneVocabulary(found.ids, name=found.name, medians=found.medians)
    if isinstance(given, GeneVocabulary | str | Path):
        return load_vocabulary(given)
    return GeneVocabulary(strip_version(list(given)), name="the vocabulary")


def _external(config: PretrainConfig, start: Any) -> Sequence[str]:
    """Return the columns of ``obs`` that become external tokens."""
    if start is None:
        return config.external
    return [slot.removeprefix("obs/") for slot in getattr(start, "external", ())]


def _plan(config: PretrainConfig, n_training: int, world: int) -> Plan:
    """Divide a run into rounds, steps and micro-batches."""
    from bulkformer_tl.train._batches import Plan

    micro = config.micro_batch_size or max(config.batch_size // world, 1)
    refuse_unless(
        config.batch_size % (micro * world) == 0,
        f"batch_size={config.batch_size} cannot be shared evenly: {world} processes hold {micro} samples each at once; "
        f"pass a multiple of {micro * world}",
    )
    steps = max(1, -(-int(config.epochs * n_training) // config.batch_size))
    rounds = -(-steps // config.checkpoint_every)
    return Plan(rounds, -(-steps // rounds), config.batch_size, micro, world)


def _train(
    parts: _Parts,
    config: PretrainConfig,
    network: Any,
    moments: Any,
    *,
    run: Run,
    plan: Plan,
    hardware: Hardware,
) -> Encoder:
    """Train from the last state on, and write the bundle."""
    from bulkformer_tl.train._batches import TrainingBatches, ValidationBatches
    from bulkformer_tl.train._checkpoints import load_state
    from bulkformer_tl.train._journal import Journal
    from bulkformer_tl.train._module import Pretraining
    from bulkformer_tl.train._objectives import OBJECTIVES

    corpus, objective = parts.corpus, OBJECTIVES[str(config.objective)](fast=config.fast)
    if parts.graph is not None:
        network.set_graph(*parts.graph)
    if parts.start is None:
        _kind(config).centre(network, moments)
    masks = MaskMaker(config.masking, corpus.vocabulary, config.seed)
    order = Order(parts.training, corpus.offsets, config.read_together, config.seed)
    left_out = np.flatnonzero(~parts.training)
    scored = left_out[np.unique(np.linspace(0, len(left_out) - 1, config.validation_samples).astype(np.int64))]
    module = Pretraining(
        network,
        objective,
        config,
        plan,
        training=TrainingBatches(corpus, order, masks, objective, plan),
        validation=ValidationBatches(corpus, masks, objective, scored, plan.micro_batch_size),
        moments=moments,
        workers=hardware.workers,
    )
    found = load_state(run.folder / "states")
    first = 0 if found is None else found[0]
    with Progress((plan.rounds - first) * plan.steps_per_round * plan.batch_size, "pretrain") as progress:
        journal = Journal(run.folder, config, plan, progress)
        if found is not None:
            logger.info("resumed after %d of %d steps", first * plan.steps_per_round, plan.steps)
            module.first_round, state = found
            module.load_state_dict(state["network"])
            module.resume_from = state["optimizer"]
            journal.load_state_dict(state["journal"])
        if first < plan.rounds and not journal.stopped:
            hardware.fit(module, journal, config, plan, folder=run.folder)
    return _finish(parts, config, moments, run=run, module=module, journal=journal, hardware=hardware)


def _finish(
    parts: _Parts, config: PretrainConfig, moments: Any, *, run: Run, module: Any, journal: Any, hardware: Hardware
) -> Encoder:
    """Restore the best weights and write the bundle."""
    from bulkformer_tl.models import load

    best = journal.best
    if module.diverged:
        what = f"the gradient was not finite at step {module.step + 1}, and training ended there"
        advice = "lower optimizer.learning_rate, or clip more, in a new folder"
        refuse_unless(bool(best) and best["step"] > 0, f"{what}, before any validation improved; {advice}")
        logger.warning("%s. The weights of step %d are kept; to train longer %s", what, best["step"], advice)
    refuse_unless(bool(best), "no validation loss was finite, so that there are no weights to keep")
    module.network.load_state_dict(best["weights"])
    names = [samples.name for samples in parts.corpus.sources]
    left_out = sorted(set(parts.corpus.studies[~parts.training]))
    training = {
        "config": config.to_dict(),
        "steps": best["step"],
        "samples": int(parts.training.sum()),
        "sources": names,
        "left_out_studies": left_out,
        "validation_loss": best["loss"],
        "baseline_loss": journal.rows[-1]["baseline_loss"],
        "start": None if parts.start is None else parts.start.name,
        "diverged": module.diverged,
    }
    model: Encoder = _kind(config).make_model(
        module.network,
        parts.corpus,
        moments,
        config=config,
        **({} if parts.graph is None else {"graph": parts.graph}),
        name=run.out.name,
        provenance={"source": f"pretraining on {len(names)} sources", "training": training},
    )
    if hardware.is_first:
        run.finish(model)
        logger.info("wrote %s: validation %.4f, step %d", run.out, best["loss"], best["step"])
        return load(run.out, device=hardware.device)
    return model.to(hardware.device)
