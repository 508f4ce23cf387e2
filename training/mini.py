"""Make the embedded checkpoint ``bulkformer-mini``, or score it on left-out studies.

``python training/mini.py --data $BULKFORMER_TL_DATA --out <folder>`` writes the bundle to ``<folder>/bulkformer-mini``.
``python training/mini.py --data ... --out <folder> --evaluate`` prints the table of left-out studies.
Every stage leaves a file in the folder, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpus as corpora
import numpy as np
import torch
from bank import Bank, make_bank
from factors import Factors, fit

from bulkformer_tl._vocabulary import GeneVocabulary, load_vocabulary
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

logger = logging.getLogger("mini")

N_FACTORS, N_SCORES = 512, 256
NEIGHBOURS, THRESHOLD = 20, 0.4
RATES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.9)
STEPS, BATCH, LEARNING_RATE, SAVE_EVERY = 200, 4, 2e-3, 50
#: Weight of the likelihood of the deviations beside the squared error of the means.
NLL_WEIGHT = 0.3
SEED = 0


class Workshop:
    """The corpus and the folder in which every stage keeps what it made.

    Parameters
    ----------
    data
        Folder of the cohorts.
    out
        Folder of the results.
    """

    def __init__(self, data: Path, out: Path) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.vocabulary: GeneVocabulary = load_vocabulary("bulkformer-mini")
        corpus = corpora.load(data, self.vocabulary)
        self.expression, self.table = corpus.expression, corpus.table
        self.folds = self.table["fold"].to_numpy()
        self.files = self.table["file"].to_numpy()

    def rows(self, without: Sequence[int]) -> NDArray[np.int64]:
        """Return the samples outside the folds."""
        return np.flatnonzero(~np.isin(self.folds, without))

    def stage(self, name: str, without: Sequence[int], suffix: str) -> Path:
        """Return the file of a stage that left out some folds."""
        return self.out / f"{name}-{'without' if without else 'all'}{''.join(map(str, sorted(without)))}{suffix}"

    def factors(self, *without: int) -> Factors:
        """Return the factor model fitted without some folds."""
        path = self.stage("factors", without, ".npz")
        if not path.exists():
            logger.info("fitting factors without folds %s", without)
            fit(self.expression[self.rows(without)], N_FACTORS).save(path)
        return Factors.read(path)

    def graph(self, *without: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the co-expression graph of the samples outside some folds."""
        path = self.stage("graph", without, ".pt")
        if not path.exists():
            logger.info("correlating genes without folds %s", without)
            _save(coexpression(self.expression[self.rows(without)]), path)
        return tuple(torch.load(path, weights_only=True))

    def bank(self, without: tuple[int, ...], fold: int, rates: Sequence[float] = RATES) -> Bank:
        """Return masked samples of one fold as factor models that know neither it nor other folds predict them."""
        rows = np.flatnonzero(self.folds == fold)
        return make_bank(self.expression, rows, self.files, self.factors(*{*without, fold}), rates, seed=SEED)

    def network(self, *without: int) -> MiniNetwork:
        """Return the network trained without some folds, shrinkage and calibration still at 1."""
        path = self.stage("network", without, ".pt")
        network = new_network(self.factors(*without), self.graph(*without))
        inner = [fold for fold in range(5) if fold not in without]
        if not path.exists():
            logger.info("making banks of folds %s without %s", inner, without)
            banks = [self.bank(without, fold) for fold in inner]
            network.unseen.copy_(torch.from_numpy(unseen_variance(banks)))
            train(network, banks, path)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()


def coexpression(values: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Connect each gene to the 20 others of highest absolute correlation, of at least 0.4.

    Parameters
    ----------
    values
        ln(TPM+1), (N, G); missing entries count as the gene's mean.

    Returns
    -------
    Edges (2, E), int32, receiver first, and weights |r|, (E,), float16.
    """
    centred = np.nan_to_num(values - np.nanmean(values, axis=0))
    scaled = torch.from_numpy(centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-6))
    receivers, senders, weights = [], [], []
    for start in range(0, scaled.shape[1], 1000):
        r = (scaled[:, start : start + 1000].T @ scaled).abs()
        own = torch.arange(len(r))
        r[own, own + start] = 0
        best, columns = r.topk(NEIGHBOURS, dim=1)
        keep = best >= THRESHOLD
        receivers.append((own + start)[:, None].expand_as(columns)[keep])
        senders.append(columns[keep])
        weights.append(best[keep])
    return torch.stack([torch.cat(receivers), torch.cat(senders)]).int(), torch.cat(weights).half()


def new_network(factors: Factors, graph: tuple[torch.Tensor, torch.Tensor]) -> MiniNetwork:
    """Build the network around a factor model; gene vectors start as scaled loadings."""
    torch.manual_seed(SEED)
    network = MiniNetwork(MiniConfig(n_genes=len(factors.mean), n_factors=N_FACTORS, n_scores=N_SCORES))
    network.mean.copy_(torch.from_numpy(factors.mean))
    network.loadings.copy_(torch.from_numpy(factors.loadings))
    network.variances.copy_(torch.from_numpy(factors.variances))
    network.noise.copy_(torch.from_numpy(factors.noise))
    width = network.config.context
    vectors = factors.loadings[:, :width] * np.sqrt(factors.variances[:width])
    with torch.no_grad():
        network.gene_embedding.weight.copy_(torch.from_numpy(vectors / vectors.std(axis=0)))
    # trained gene vectors learn what is peculiar to the training studies, which made unseen ones worse
    network.gene_embedding.weight.requires_grad_(requires_grad=False)
    network.set_graph(*graph)
    return network


def unseen_variance(banks: Sequence[Bank]) -> NDArray[np.float32]:
    """Return each gene's squared error at hidden entries of unseen studies, files weighing alike, (G,)."""
    errors = np.stack([error for bank in banks for error in bank.file_errors()])
    seen = ~np.isnan(errors)
    mean = np.nansum(errors, axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen.any(axis=0), mean, np.nanmedian(errors)).astype(np.float32)


def train(network: MiniNetwork, banks: Sequence[Bank], path: Path) -> None:
    """Train the encoder on the residuals of cross-fitted factor models; goes on from ``<path>.part`` if it is there.

    Parameters
    ----------
    network
        Network to train.
    banks
        Masked samples to train on.
    path
        Where to write the state dict.
    """
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    part, start = path.with_suffix(".part"), 0
    if part.exists():
        state = torch.load(part, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        start = state["step"]
    weight = np.concatenate([bank.weights() for bank in banks])
    owner = np.repeat(np.arange(len(banks)), [len(bank) for bank in banks])
    local = np.concatenate([np.arange(len(bank)) for bank in banks])
    network.train()
    for step in range(start, STEPS):
        # one generator per step, so that a resumed run draws what an uninterrupted one does
        rng = np.random.default_rng([SEED, step])
        chosen = rng.choice(len(weight), BATCH, p=weight / weight.sum())
        drawn = [banks[owner[i]].draw(local[i], rng) for i in chosen]
        values, visible, hidden, mean, spread = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        correction, log_scale = network.correct(vectors := network.contextualise(values, visible, mean, spread))
        error = (values - mean - correction)[hidden]
        log_deviation = (vectors[..., 1] + log_scale)[hidden]
        likelihood = (0.5 * error.detach().square() * (-2 * log_deviation).exp() + log_deviation).mean()
        loss = error.square().mean() + NLL_WEIGHT * likelihood
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 10 == 0:
            base = float((values - mean)[hidden].square().mean())
            logger.info("step %d squared error %.4f, factors alone %.4f", step, float(error.square().mean()), base)
        if (step + 1) % SAVE_EVERY == 0:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            _save(state | {"schedule": schedule.state_dict(), "step": step + 1}, part)
    _save(network.state_dict(), path)
    part.unlink(missing_ok=True)


def _save(content: Any, path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def main() -> None:
    """Make the bundle or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the cohorts")
    parser.add_argument("--out", type=Path, required=True, help="folder of the stages and of the result")
    parser.add_argument("--evaluate", action="store_true", help="print the table of left-out studies")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 2], help="folds to leave out with --evaluate")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    workshop = Workshop(arguments.data, arguments.out)
    if arguments.evaluate:
        from evaluation import evaluate
        from probe import probe

        for name, table in {
            "mini": evaluate(workshop, arguments.folds),
            "mini_probe": probe(workshop, arguments.data, range(5)),
        }.items():
            print(table.to_string(index=False))
            table.to_csv(arguments.out / f"{name}.csv", index=False)
    else:
        from bundle import write_bundle

        write_bundle(workshop)


if __name__ == "__main__":
    main()
