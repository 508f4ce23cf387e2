"""Time and memory of embedding and imputing against the number of samples, and against the number of genes.

``nox -s bench -- benchmarks/scaling.py [--samples 100000] [--write]``, on ``OMP_NUM_THREADS`` threads. Simulated
cohorts of the embedded model's genes, a tenth of them missing, lie in a zarr store and are streamed to another one;
beside it, while they are small, the same read into memory as a whole. Networks of other numbers of genes have the
embedded model's shape and random weights; there all vectors of genes are computed and averaged, from memory.

Each figure comes from a process of its own. Seconds are those of the processor, so that what else the machine does
counts less; loading and one sample come before. Memory is the largest resident memory, looked at 50 times a second,
less what was resident before. ``--write`` makes ``docs/benchmarks/scaling.md`` and its picture anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "scaling.md"
PICTURE = PAGE.with_name("streaming.png")
#: What is measured -> the largest number of samples, as a share of that of embedding.
WAYS = {"embed, streamed": 1.0, "embed, in memory": 0.1, "impute, streamed": 0.1}
GENES = (2500, 5000, 10000, 20000)
SAMPLES_PER_NETWORK = 24
MISSING = 0.1
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10000, help="largest cohort to embed")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--inside", nargs=3, metavar=("WAY", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.samples < 3200:
        parser.error("--samples has to be at least 3200, or there is no slope to see")
    if options.inside:
        way, size, folder = options.inside
        measure = of_genes(int(size)) if way == "genes" else of_samples(way, Path(folder))
        print(json.dumps(measured(*measure)))
        return
    by_samples = over_samples(options.samples)
    by_genes = [(size, *in_new_process("genes", size, "")) for size in GENES]
    page = report(by_samples, by_genes)
    print(page)
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
        draw(by_samples, by_genes)


Figures = list[tuple[int, float, float]]


def over_samples(largest: int) -> dict[str, Figures]:
    """Return size, seconds and MiB of each way at each size that it goes to."""
    found: dict[str, Figures] = {way: [] for way in WAYS}
    sizes = [int(size) for size in 10.0 ** np.arange(2, np.log10(largest) + 0.01, 0.5)]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            simulate(size, Path(folder) / "in.zarr")
            for way, share in WAYS.items():
                if size <= share * largest:
                    found[way].append((size, *in_new_process(way, size, folder)))
                    print(way, *(round(figure, 2) for figure in found[way][-1]), file=sys.stderr, flush=True)
    return found


def in_new_process(way: str, size: int, folder: str) -> tuple[float, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--inside", way, str(size), folder]
    seconds, memory = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return seconds, memory


def simulate(size: int, path: Path) -> None:
    """Write ln(TPM+1) of samples that are mixtures of simulated ones, a block at a time."""
    import anndata as ad
    import zarr

    import bulkformer_tl as bf

    toy = bf.datasets.toy(64)
    bf.pp.log_tpm(toy)
    profiles = toy.to_df("log_tpm").to_numpy()
    rng = np.random.default_rng(size)
    absent = rng.random(toy.n_vars) < MISSING
    annotation = ad.AnnData(shape=(size, toy.n_vars))
    annotation.obs_names = [f"sample_{i}" for i in range(size)]
    annotation.var_names = toy.var_names
    annotation.write_zarr(path)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    encoding = {"encoding-type": "array", "encoding-version": "0.2.0"}
    x = group.create_array("X", shape=annotation.shape, dtype="f4", chunks=(64, toy.n_vars), attributes=encoding)
    for start in range(0, size, 64):
        shares = rng.dirichlet(np.full(len(profiles), 0.2), size=min(64, size - start))
        block = (shares @ profiles).astype(np.float32)
        block[:, absent] = np.nan
        x[start : start + len(block)] = block
    zarr.consolidate_metadata(path)


def of_samples(way: str, folder: Path) -> tuple[Callable[[], object], ...]:
    """Return what to do once before, and what to measure."""
    import anndata as ad
    from anndata.experimental import read_lazy

    import bulkformer_tl as bf

    bf.settings.progress = False
    model = bf.models.load("bulkformer-mini", device="cpu")
    function = bf.tl.embed if way.startswith("embed") else bf.tl.impute
    lazy = read_lazy(folder / "in.zarr")
    out = folder / f"{way}.zarr"

    def before() -> None:
        one = lazy[:1].to_memory()
        bf.tl.embed(one, model=model)
        bf.tl.impute(one, model=model, blend=False)

    def stream() -> None:
        function(lazy, model=model, output=out)

    def at_once() -> None:
        adata = ad.read_zarr(folder / "in.zarr")
        function(adata, model=model)
        adata.write_zarr(out)

    return before, at_once if way.endswith("memory") else stream


def of_genes(size: int) -> tuple[Callable[[], object], ...]:
    """Return the same for a network of a number of genes."""
    import bulkformer_tl as bf

    bf.settings.progress = False
    model = network(size)
    adata = cohort(model, SAMPLES_PER_NETWORK)
    one = adata[:1].copy()
    return tuple(partial(bf.tl.embed, those, model=model, pooling="mean") for those in (one, adata))


def network(size: int) -> Any:
    """Return the embedded model's network for other genes, with random weights and a graph of 20 edges per gene."""
    import torch

    from bulkformer_tl import models
    from bulkformer_tl._vocabulary import GeneVocabulary
    from bulkformer_tl.models._mini import MiniConfig, MiniNetwork
    from bulkformer_tl.models._neighbour_model import pack

    torch.manual_seed(0)
    neighbours = torch.randint(0, size, (size, 200)).sort(dim=1).values
    packed = pack(neighbours, torch.randn(size, 200) / 200)
    made = MiniNetwork(MiniConfig(size, n_factors=1000, n_scores=256, n_entries=len(packed["steps"])))
    made.neighbours.set_packed(**packed)
    edges = torch.stack([torch.arange(size).repeat_interleave(20), torch.randint(0, size, (size * 20,))])
    vocabulary = GeneVocabulary(np.array([f"ENSG{i:011}" for i in range(size)]))
    facts: dict[str, Any] = {"name": f"{size} genes", "family": "mini", "denominator": "all"}
    return models.BulkFormer(made, vocabulary, graph=(edges, torch.rand(size * 20)), **facts).to("cpu")


def cohort(model: Any, size: int) -> AnnData:
    import anndata as ad
    import pandas as pd

    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 1.0, (size, len(model.vocabulary))).astype(np.float32)
    values[:, rng.random(values.shape[1]) < MISSING] = np.nan
    return ad.AnnData(values, var=pd.DataFrame(index=model.vocabulary.ids))


def measured(before: Callable[[], object], what: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of the processor, and the MiB that are resident beyond those before."""
    before()
    peak = resident()
    least, stop = peak, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    what()
    taken = time.process_time() - start
    stop.set()
    watcher.join()
    return taken, (peak - least) / MIB


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def report(by_samples: dict[str, Figures], by_genes: Figures) -> str:
    embedded, imputed = by_samples["embed, streamed"], by_samples["impute, streamed"]
    at_once = by_samples["embed, in memory"]
    lines = [
        "# Time and memory against samples and genes\n",
        *(__doc__ or "").split("\n\n")[1:],
        "```{figure} streaming.png",
        ":alt: seconds and memory against samples and against genes\n",
        "Lines of slope 1 are dotted.",
        "```\n",
        "## Samples\n",
        *table("samples", by_samples),
        "",
        f"**Verdict.** From {embedded[-2][0]:,} to {embedded[-1][0]:,} samples the time of embedding grows with the "
        f"power {slope(embedded[-2:], 1):.2f} of their number and its memory with {slope(embedded[-2:], 2):.2f}; read "
        f"as a whole, memory grows with {slope(at_once, 2):.2f}. {embedded[-1][0]:,} samples, "
        f"{embedded[-1][0] * 18431 * 4 / 2**20:,.0f} MiB of values, are embedded in {embedded[-1][2]:,.0f} MiB beside "
        "the model.\n",
        f"From {imputed[-2][0]:,} to {imputed[-1][0]:,} samples the time of imputing grows with the power "
        f"{slope(imputed[-2:], 1):.2f}. It fits its blend to up to 256 samples and 24 runs of the model, whatever the "
        "size of the cohort, and so costs more for each of a few samples.\n",
        "## Genes\n",
        f"{SAMPLES_PER_NETWORK} samples.\n",
        *table("genes", {"embed by mean pooling": by_genes}, per=SAMPLES_PER_NETWORK),
        "",
        f"**Verdict.** From {by_genes[0][0]:,} to {by_genes[-1][0]:,} genes time grows with the power "
        f"{slope(by_genes, 1):.2f} of their number; {SAMPLES_PER_NETWORK} samples take at most "
        f"{max(memory for _, _, memory in by_genes):,.0f} MiB more than the first of them did.\n",
    ]
    return "\n".join(lines)


def table(what: str, ways: dict[str, Figures], per: int | None = None) -> list[str]:
    lines = [f"| way | {what} | seconds | ms per sample | MiB |", "| --- | --: | --: | --: | --: |"]
    for way, figures in ways.items():
        lines += [
            f"| {way} | {size:,} | {seconds:.2f} | {1000 * seconds / (per or size):.1f} | {memory:,.0f} |"
            for size, seconds, memory in figures
        ]
    return lines


def slope(figures: Figures, column: int) -> float:
    """Return the power of the size with which a figure grows."""
    size, value = (np.log([figure[i] for figure in figures]) for i in (0, column))
    return float(np.polyfit(size, value, 1)[0])


def draw(by_samples: dict[str, Figures], by_genes: Figures) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    pooled = {"embed by mean pooling": by_genes}
    panels = (
        ("samples", "seconds", 1, by_samples),
        ("samples", "MiB", 2, by_samples),
        ("genes", "seconds", 1, pooled),
    )
    for ax, (what, name, position, ways) in zip(axes, panels, strict=True):
        for way, figures in ways.items():
            ax.plot([f[0] for f in figures], [f[position] for f in figures], marker="o", markersize=3, label=way)
        first = next(iter(ways.values()))
        ends, middle = np.array([first[0][0], first[-1][0]]), first[len(first) // 2]
        ax.plot(ends, ends / middle[0] * middle[position], ":", color="0.6", linewidth=1, zorder=0)
        ax.set(xscale="log", yscale="log", xlabel=what, ylabel=name if position == 1 else "MiB beside the model")
        ax.spines[["top", "right"]].set_visible(False)
    axes[2].set_xticks(GENES, [f"{size:,}" for size in GENES])
    axes[2].set_yticks([0.3, 0.5, 1, 2], ["0.3", "0.5", "1", "2"])
    for direction in (axes[2].xaxis, axes[2].yaxis):
        direction.set_minor_formatter(plt.NullFormatter())
    axes[0].legend(frameon=False, fontsize="small")
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
