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
import factors
import neighbours
import numpy as np
import torch
from bank import Bank, make_bank
from factors import LEAST_NOISE, Factors
from factors import NOISE_FACTOR as FITTED_FACTOR
from neighbours import Neighbours
from tuning import apply, tuning_without

from bulkformer_tl._vocabulary import GeneVocabulary, load_vocabulary
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork
from bulkformer_tl.models._neighbour_model import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bulkformer_tl.models import BulkFormer

logger = logging.getLogger("mini")

N_FACTORS, N_SCORES = 1000, 256
NEIGHBOURS, THRESHOLD = 10, 0.4
RATES = (0.15, 0.5, 0.9)
STEPS, BATCH, LEARNING_RATE, SAVE_EVERY = 80, 4, 2e-3, 20
#: Noise of a gene, as a multiple of the geometric mean of its residuals.
NOISE_FACTOR = 2.0
#: Weight of the likelihood of the deviations beside the squared error of the means.
NLL_WEIGHT = 0.3
SEED = 0
#: Samples of each file that the encoder may learn from.
PER_FILE = 32


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
        self._tuned: dict[tuple[int, int], MiniNetwork] = {}

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
            factors.fit(self.expression[self.rows(without)], N_FACTORS).save(path)
        return Factors.read(path)

    def neighbours(self, *without: int) -> Neighbours:
        """Return the regressions on neighbours fitted without some folds."""
        path = self.stage("neighbours", without, ".npz")
        if not path.exists():
            logger.info("fitting neighbours without folds %s", without)
            values = self.expression[self.rows(without)]
            neighbours.fit(np.nan_to_num(values - self.factors(*without).mean)).save(path)
        return Neighbours.read(path)

    def graph(self, *without: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the co-expression graph of the samples outside some folds."""
        path = self.stage("graph", without, ".pt")
        if not path.exists():
            logger.info("correlating genes without folds %s", without)
            _save(coexpression(self.expression[self.rows(without)]), path)
        return tuple(torch.load(path, weights_only=True))

    def bank(self, without: tuple[int, ...], fold: int, rates: Sequence[float] = RATES) -> Bank:
        """Return masked samples of one fold as linear models that know neither it nor other folds predict them."""
        own = np.flatnonzero(self.folds == fold)
        # few files hold more, and training draws 800 samples
        rows = [
            np.random.default_rng(SEED).permutation(own[self.files[own] == file])[:PER_FILE]
            for file in np.unique(self.files[own])
        ]
        rows = np.sort(np.concatenate(rows))
        return make_bank(self.expression, rows, self.files, self.linear(*{*without, fold}), rates, seed=SEED)

    def linear(self, *without: int) -> tuple[Factors, Neighbours]:
        """Return both linear models fitted without some folds."""
        return self.factors(*without), self.neighbours(*without)

    def network(self, *without: int, seed: int = SEED) -> MiniNetwork:
        """Return the network trained without some folds, shrinkage and calibration still at 1."""
        path = self.stage("network" if seed == SEED else f"network-seed{seed}", without, ".pt")
        network = new_network(self.linear(*without), self.graph(*without), seed)
        inner = [fold for fold in range(5) if fold not in without]
        if not path.exists():
            logger.info("making banks of folds %s without %s", inner, without)
            banks = [self.bank(without, fold) for fold in inner]
            share = float(np.mean([bank.neighbour_share() for bank in banks]))
            banks = [bank.mixed(share) for bank in banks]
            network.neighbour_share.fill_(share)
            network.unseen.copy_(torch.from_numpy(unseen_variance(banks)))
            network.factors.noise.copy_(noise(self.factors(*without), network.unseen))
            network.factors.forget()
            logger.info("neighbours weigh %.3f", share)
            train(network, banks, path, seed)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()

    def tuned(self, fold: int, *, seed: int = SEED) -> MiniNetwork:
        """Return the network trained without a fold; what is left to choose was chosen on the other folds."""
        network = self.network(fold, seed=seed)
        apply(network, [tuning_without(self, other) for other in range(5) if other != fold])
        return network

    def predict(
        self, fold: int, values: NDArray[np.float32], visible: NDArray[np.bool_], *, seed: int = SEED
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predict samples of a left-out fold that show the same genes: means and deviations, both (n, G)."""
        if (fold, seed) not in self._tuned:
            self._tuned[fold, seed] = self.tuned(fold, seed=seed)
        network = self._tuned[fold, seed]
        observed, parts = torch.from_numpy(visible)[None], []
        # not around the whole: what is not there yet is trained first
        with torch.inference_mode():
            for row in values:
                shown = torch.from_numpy(np.nan_to_num(row))[None]
                vectors = network(shown, observed)
                parts.append((network.predict(vectors, shown, observed), network.deviation(vectors, shown, observed)))
        mean, deviation = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return mean.clip(min=0), deviation

    def model(self, fold: int, *, seed: int = SEED) -> BulkFormer:
        """Return the model that never saw a fold, as a user would load it."""
        from bundle import as_model

        return as_model(self, self.tuned(fold, seed=seed), self.graph(fold))


def coexpression(values: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Connect each gene to the ``NEIGHBOURS`` others of highest absolute correlation, of at least 0.4.

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


def new_network(linear: tuple[Factors, Neighbours], graph: tuple[torch.Tensor, torch.Tensor], seed: int) -> MiniNetwork:
    """Build the network around both linear models."""
    torch.manual_seed(seed)
    factors, neighbours = linear
    packed = pack(torch.from_numpy(neighbours.genes), torch.from_numpy(neighbours.weights))
    sizes = {"n_genes": len(factors.mean), "n_factors": N_FACTORS, "n_scores": N_SCORES}
    network = MiniNetwork(MiniConfig(**sizes, n_entries=len(packed["codes"])))
    fitted = (factors.mean, factors.loadings, factors.variances, factors.noise)
    network.factors.set_model(*(torch.from_numpy(part) for part in fitted))
    network.neighbours.set_packed(**packed)
    network.set_graph(*graph)
    return network


def noise(factors: Factors, unseen: torch.Tensor) -> torch.Tensor:
    """Weigh genes by what the factors leave of them in studies that were fitted and in studies that were not, (G,).

    The geometric mean of both, which on left-out studies did better than either.
    """
    return NOISE_FACTOR * (torch.from_numpy(factors.noise) / FITTED_FACTOR * unseen.clamp(min=LEAST_NOISE)).sqrt()


def unseen_variance(banks: Sequence[Bank]) -> NDArray[np.float32]:
    """Return each gene's squared error at hidden entries of unseen studies, files weighing alike, (G,)."""
    errors = np.stack([error for bank in banks for error in bank.file_errors()])
    seen = ~np.isnan(errors)
    mean = np.nansum(errors, axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen.any(axis=0), mean, np.nanmedian(errors)).astype(np.float32)


def train(network: MiniNetwork, banks: Sequence[Bank], path: Path, seed: int) -> None:
    """Train the encoder on the residuals of cross-fitted linear models; goes on from ``<path>.part`` if it is there.

    Parameters
    ----------
    network
        Network to train.
    banks
        Masked samples to train on.
    path
        Where to write the state dict.
    seed
        Order of samples and masks.
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
        rng = np.random.default_rng([seed, step])
        chosen = rng.choice(len(weight), BATCH, p=weight / weight.sum())
        drawn = [banks[owner[i]].draw(local[i], rng) for i in chosen]
        values, visible, hidden, *linear = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        correction, log_scale = network.correct(vectors := network.contextualise(values, visible, *linear))
        mean = linear[0]
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
            logger.info(
                "step %d squared error %.4f, linear models alone %.4f", step, float(error.square().mean()), base
            )
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
    parser.add_argument(
        "--folds", type=int, nargs="+", default=list(range(5)), help="folds to leave out with --evaluate"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    workshop = Workshop(arguments.data, arguments.out)
    if arguments.evaluate:
        from evaluation import evaluate
        from probe import probe, render_probe
        from scores import render

        for name, make, show in (
            ("mini", lambda: evaluate(workshop, arguments.folds), render),
            ("mini_probe", lambda: probe(workshop, arguments.data, arguments.folds), render_probe),
        ):
            table = make()
            table.to_csv(arguments.out / f"{name}.csv", index=False)
            print(show(table))
    else:
        from bundle import write_bundle

        write_bundle(workshop)


if __name__ == "__main__":
    main()
