"""What each part of the embedded checkpoint is worth: variants trained at one budget, scored on left-out studies.

``python training/ablations.py --data $BULKFORMER_TL_DATA --out build/mini`` prints the table and writes
``ablations.csv`` and ``scaling.png`` to the folder, in which it shares the linear models with ``mini.py``. Every
trained network leaves its scores there, and a run that was stopped goes on from them. With ``--long`` the published
types and the full network are trained 25 times as long, and the table is ``ablations_long.csv``. With ``--out`` and
``--draw training/results/ablations.csv`` alone the picture is drawn of that table, and nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from bench import N_GENES, Bench
from mini import BATCH, LEARNING_RATE, RATES, STEPS, Workshop
from scores import draws
from tuning import tune
from variants import FULL, VARIANTS, WIDTH, WIDTHS, Contestant, Materials, Variant

from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bank import Bank
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Row = dict[str, Any]

logger = logging.getLogger("ablations")

SEEDS = (0, 1)
#: Steps of the long table, and the variants that it compares.
LONG_STEPS = 2000
LONG = (
    FULL,
    "G2 as published",
    "G2 without mean correction",
    "G3 as published",
    "G3, deviations from gene means",
    "G3, low-rank context",
    "G3, low-rank context, table of loadings",
)
LINEAR = "factor model and neighbours"


def train(variant: Variant, materials: Materials, bank: Bank, seed: int, steps: int = STEPS) -> Contestant:
    """Train a variant on squared error at hidden genes; all variants see the same samples in the same order."""
    torch.manual_seed(seed)
    contestant = variant.build(materials).train()
    optimiser = torch.optim.AdamW(
        [part for part in contestant.parameters() if part.requires_grad], lr=LEARNING_RATE, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    weights = bank.weights() / bank.weights().sum()
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        rates = variant.schedule(step / steps)
        masked = replace(bank, blocks=[block for block in bank.blocks if block.rate in rates])
        drawn = [masked.draw(row, rng) for row in rng.choice(len(bank), BATCH, p=weights)]
        values, visible, hidden, *linear = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        _, predicted = contestant(values, visible, *linear)
        loss = (values - predicted)[hidden].square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(contestant.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return contestant.eval()


@torch.inference_mode()
def predict(contestant: Contestant, bank: Bank) -> list[tuple[Floats, Floats]]:
    """Return where a network starts from and what it predicts for each block, both (n, G)."""
    predicted = []
    for block in bank.blocks:
        shape = block.mean.shape
        given = [np.nan_to_num(bank.expression[block.rows]), np.broadcast_to(block.visible, shape)]
        given += [block.mean.astype(np.float32), block.gap.astype(np.float32), np.broadcast_to(block.spread, shape)]
        start, end = contestant(*(torch.from_numpy(part.copy()) for part in given))
        predicted.append((start.numpy(), end.numpy()))
    return predicted


def shrinkage(bank: Bank, predicted: Sequence[tuple[Floats, Floats]]) -> float:
    """Return the share of the way from start to end that has the least squared error; files and rates weigh alike."""
    entries = []
    for block, (start, end) in zip(bank.blocks, predicted, strict=True):
        hidden = block.hidden
        truth = bank.expression[block.rows][:, hidden].ravel()
        first, last = start[:, hidden].ravel(), end[:, hidden].ravel()
        entries.append((truth, first, last - first, np.ones_like(first)))
    return tune(entries).shrinkage


def score(bank: Bank, predicted: Sequence[Floats]) -> dict[str, float]:
    """Score predictions of each block, (n, G), at hidden entries: error at each rate, and correlations over all."""
    truths = [np.where(block.hidden, bank.expression[block.rows], np.nan) for block in bank.blocks]
    # expression is never negative
    ends = [np.maximum(part, 0) for part in predicted]
    found = {}
    for rate in RATES:
        own = [place for place, block in enumerate(bank.blocks) if block.rate == rate]
        pair = ([parts[place] for place in own] for parts in (truths, ends))
        found[f"rmse_{100 * rate:.0f}"] = _draw(*pair)["rmse"]
    together = _draw(truths, ends)
    correlations = {name: together[name] for name in ("r_global", "r_gene")}
    return {"rmse": float(np.mean(list(found.values())))} | found | correlations


def _draw(truths: Sequence[Floats], ends: Sequence[Floats]) -> dict[str, float]:
    truth, end = np.concatenate(truths), np.concatenate(ends)
    once = np.ones((1, len(truth)))
    return {name: float(value) for name, (value,) in draws(truth, end.astype(float), None, once).items()}


def reference(bench: Bench) -> list[Row]:
    """Score what needs no network."""
    mean = bench.materials.factors.mean
    rows = {
        "gene mean": (bench.score, [np.broadcast_to(mean, block.mean.shape) for block in bench.score.blocks]),
        "factor model": (bench.factor_score, [block.mean.astype(np.float32) for block in bench.factor_score.blocks]),
        LINEAR: (bench.score, [block.mean.astype(np.float32) for block in bench.score.blocks]),
    }
    return [{"variant": name, "weights": 0, **score(bank, parts)} for name, (bank, parts) in rows.items()]


def contest(bench: Bench, name: str, seed: int, steps: int = STEPS) -> Row:
    """Train a variant, and score it shrunk as is best on the inner fold, not at all, and as would have been best."""
    logger.info("training %s, seed %d", name, seed)
    materials, bank = bench.materials, bench.train
    start = time.process_time()
    contestant = train(VARIANTS[name], materials, bank, seed, steps)
    seconds = time.process_time() - start
    chosen = shrinkage(bench.choose, predict(contestant, bench.choose))
    predicted = predict(contestant, bench.score)
    best = shrinkage(bench.score, predicted)
    scores = [
        score(bench.score, [first + share * (last - first) for first, last in predicted]) for share in (chosen, 1, best)
    ]
    row = {"variant": name, "seed": seed, "weights": contestant.size(), **scores[0], "shrinkage": chosen}
    return row | {"rmse_unshrunk": scores[1]["rmse"], "rmse_best": scores[2]["rmse"], "cpu_seconds": seconds}


def run(bench: Bench, names: Sequence[str], seeds: Sequence[int], steps: int) -> pd.DataFrame:
    """Return the scores of variants and seeds, one row each."""
    rows = _kept(bench, "reference", steps, lambda: reference(bench))
    for seed in seeds:
        for name in names:
            own = (name, seed, steps)
            rows += _kept(bench, f"{name}-seed{seed}", steps, lambda own=own: [contest(bench, *own)])
    return pd.DataFrame(rows)


def _kept(bench: Bench, name: str, steps: int, make: Callable[[], list[Row]]) -> list[Row]:
    """Return the rows of one part, from the folder if they were made there at the same budget."""
    budget = [steps, BATCH, N_GENES]
    part_name = f"ablation-{re.sub(r'[^a-zA-Z0-9]+', '-', name)}-{steps}"
    path = bench.workshop.stage(part_name, [bench.fold], ".json")
    if path.exists() and (part := json.loads(path.read_text(encoding="utf-8")))["budget"] == budget:
        return part["rows"]
    rows = make()
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps({"budget": budget, "rows": rows}), encoding="utf-8")
    temporary.replace(path)
    logger.info("%s: squared error %.4f", name, rows[-1]["rmse"])
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds: one row per variant, with the standard deviation of the error and its gain in per cent.

    One seed has no deviation.
    """
    grouped = rows.drop(columns="seed").groupby("variant", sort=False)
    table = grouped.mean()
    linear = table.loc[LINEAR, "rmse"]
    table.insert(2, "rmse_sd", grouped["rmse"].std())
    table.insert(3, "gain_percent", 100 * (1 - table["rmse"] / linear))
    table["weights"] = table["weights"].astype(int)
    return table.round({"cpu_seconds": 0, "gain_percent": 2, "shrinkage": 2}).round(4).reset_index()


def draw_scaling(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the mean error of three widths against their trained weights, with a fitted line; ``table`` of the csv."""
    axes = new_axes(ax, (5.6, 3.6))
    widths = table[table["variant"].isin([FULL if width == WIDTH else f"width {width}" for width in WIDTHS])]
    weights = widths["weights"].to_numpy(dtype=float)
    ends = np.array([weights.min(), weights.max()])
    series = {"as trained": "rmse_unshrunk", "shrunk": "rmse"}
    for colour, (label, column) in zip(OKABE_ITO[1:], series.items(), strict=False):
        slope, height = np.polyfit(np.log10(weights), widths[column], 1)
        axes.scatter(weights, widths[column], color=colour, s=16)
        text = f"{label}: {slope:+.4f} for ten times the weights"
        axes.plot(ends, height + slope * np.log10(ends), color=colour, linewidth=2, label=text)
    linear = table.loc[table["variant"] == LINEAR, "rmse"].iloc[0]
    axes.axhline(linear, color=OKABE_ITO[0], linestyle="--", linewidth=1.5, label="linear models alone")
    axes.set(xscale="log", xlabel="trained weights", ylabel="RMSE at hidden genes, ln(TPM+1)")
    axes.set_xticks(np.unique(weights), [f"{count:,.0f}" for count in np.unique(weights)])
    axes.minorticks_off()
    axes.margins(0.08)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return axes


def save_scaling(table: pd.DataFrame, folder: Path) -> None:
    """Write the picture of :func:`draw_scaling` to a folder."""
    draw_scaling(table).figure.savefig(folder / "scaling.png", dpi=150)


def main() -> None:
    """Print the table; write it and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the cohorts")
    parser.add_argument("--out", type=Path, required=True, help="folder of the stages and of the result")
    parser.add_argument("--fold", type=int, default=0, choices=range(5), help="fold to leave out")
    parser.add_argument("--long", action="store_true", help="train a few variants longer, one seed each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draw", type=Path, help="only draw the picture of this table")
    arguments = parser.parse_args()
    if arguments.draw is not None:
        save_scaling(pd.read_csv(arguments.draw), arguments.out)
        return
    if arguments.data is None:
        parser.error("--data is needed to train")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    bench = Bench(Workshop(arguments.data, arguments.out), arguments.fold)
    if arguments.long:
        rows, name = run(bench, LONG, SEEDS[:1], LONG_STEPS), "ablations_long.csv"
    else:
        rows, name = run(bench, list(VARIANTS), SEEDS, STEPS), "ablations.csv"
    table = summarise(rows)
    if not arguments.long:
        save_scaling(table, arguments.out)
    print(table.to_string(index=False))
    table.to_csv(arguments.out / name, index=False)


if __name__ == "__main__":
    main()
