"""``model.encode`` beside the way of the authors' notebook, in one run: seconds, memory, and how near the numbers are.

``python benchmarks/inference.py [--quick] [--only 37M] [--results build/inference.json] [--write]``, on
``OMP_NUM_THREADS`` threads. The notebook runs a batch through the network in float32, predictions included, takes all
gene vectors to the host and averages them there; here it runs our reference modules, which are built of the same
layers. Weights and graph are random (20 edges per gene, queries and keys three times as large as drawn, so that
attention is not uniform); samples are five expression programs and noise, a tenth of the genes missing.

Seconds per sample are medians of runs in turns, ratios medians of the ratios of pairs. With ``--clock cpu`` they are
seconds of the processor, for machines on which others compute; of one thread these are the seconds of a quiet machine.
The largest matrix products are measured in the same process before and after, and stand above each table: by them the
published seconds of the authors' own code are scaled, beside which ours of the notebook have to stand: a ratio counts
where it takes at most 15 % longer. Half of the notebook's time can go into fresh memory, of which it asks for hundreds
of MiB with every layer. So all is measured twice: as processes start by default, and with the C library told to keep
all memory that it ever got (``MALLOC_TRIM_THRESHOLD_`` and the like), which favours the notebook. Memory is the largest
resident memory beyond what is resident when the model is loaded, each way in a process of its own.
``--results`` keeps rows, so that cases can be measured one by one; ``--write`` makes the page and the picture of the
docs from them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _roofline import draw

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
WAYS = ("notebook", "float32", "bf16")
GENES, EDGES = 20010, 20
#: Name -> family and sizes. Where layers are cut, the whole network would take this machine too long.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "37M": ("g2", {"dim": 128}),
    "50M": ("g2", {"dim": 256, "n_performers": 2}),
    "93M": ("g2", {"dim": 512, "n_performers": 6}),
    "93M, 2 of 6 layers": ("g2", {"dim": 512, "n_performers": 2}),
    "147M, 1 of 12 layers": ("g2", {"dim": 640, "n_performers": 1}),
    "latest, 1 of 12 layers": ("g3", {"depth": 1}),
}
QUICK = {"tiny, 2,000 genes": ("g2", {"dim": 64, "n_genes": 2000})}
#: Seconds per sample of the authors' code, by batch size, where the largest float32 product makes 205 GFLOP/s.
PUBLISHED = {
    "37M": {1: 0.18, 2: 0.31, 4: 0.39, 8: 0.38},
    "50M": {1: 1.65, 2: 1.72, 4: 1.59, 8: 1.57},
    "93M": {1: 11.3, 2: 11.6, 4: 12.6, 8: 11.3},
}
PUBLISHED_PEAK = 205e9
#: Has glibc keep all memory.
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36), "MALLOC_TOP_PAD_": str(2**28)}


class Case:
    """A model with random weights, samples, and the ways through it."""

    def __init__(self, name: str) -> None:
        import numpy as np
        import torch

        from bulkformer_tl._vocabulary import GeneVocabulary
        from bulkformer_tl.models import BulkFormer, EngineOptions
        from bulkformer_tl.models._families import family_classes, make_config

        torch.manual_seed(0)
        family, sizes = (CASES | QUICK)[name]
        config = make_config(family, {"n_genes": GENES, **sizes})
        genes = config.n_genes
        network = family_classes(family)[1](config)
        for key, parameter in network.named_parameters():
            if key.endswith(("to_q.weight", "to_k.weight")):
                parameter.data *= 3
        edges = torch.stack([torch.arange(genes).repeat_interleave(EDGES), torch.randint(0, genes, (genes * EDGES,))])
        ids = GeneVocabulary(np.array([f"G{i}" for i in range(genes)]))
        facts: dict[str, Any] = {"name": name, "family": family, "denominator": "all", "checksum": "random"}
        self.model = BulkFormer(network, ids, graph=(edges, torch.rand(genes * EDGES)), **facts)
        # of one network, each with an engine of its own
        self.ways: dict[str, Any] = {way: copy.copy(self.model) for way in WAYS}
        for way, model in self.ways.items():
            model.engine = EngineOptions(reference=True) if way == "notebook" else EngineOptions(precision=way)  # type: ignore[arg-type]
        programs = torch.randn(8, 5) @ torch.randn(5, genes) / 5**0.5
        values = (torch.rand(genes) * 8 + programs + 0.3 * torch.randn(8, genes)).clamp(0, 13)
        self.values = values.masked_fill(torch.rand(values.shape) < 0.1, torch.nan)

    def run(self, way: str, batch: int) -> Any:
        """Return sample vectors."""
        if way == "notebook":
            return self.notebook(batch)
        return self.ways[way].encode(self.values[:batch], pooling="mean", observed_only=False).pooled

    def notebook(self, batch: int) -> Any:
        """Run a batch as the authors' notebook does."""
        import torch

        network, observed = self.model.network, ~self.values[:batch].isnan()
        values = self.values[:batch].nan_to_num()
        with torch.inference_mode():
            hidden = network(values, observed)
            network.predict(hidden, values, observed)
            if network.n_summary:
                added = network.summaries(values, observed)[:, None].expand(-1, hidden.shape[1], -1)
                hidden = torch.cat([hidden, added], dim=-1)
        return torch.from_numpy(hidden.numpy().mean(axis=1))[:, : network.config.dim]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small network")
    parser.add_argument("--only", help="the case of this name")
    parser.add_argument("--batches", default="1,4", help="batch sizes")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each way that are timed")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: where others compute, one thread"
    )
    parser.add_argument("--results", type=Path, help="JSON file to keep rows in")
    parser.add_argument("--write", action="store_true", help="make the page and the picture from --results")
    parser.add_argument("--inside", nargs=2, metavar=("WHAT", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        what, way = arguments.inside
        print(json.dumps(inside(what, way, arguments)))
        return
    kept = json.loads(arguments.results.read_text()) if arguments.results and arguments.results.exists() else {}
    if not arguments.write:
        for name in [arguments.only] if arguments.only else QUICK if arguments.quick else CASES:
            kept[name] = measure(name, arguments)
            print("\n".join(table({name: kept[name]})), flush=True)
            if arguments.results:
                arguments.results.parent.mkdir(parents=True, exist_ok=True)
                arguments.results.write_text(json.dumps(kept, indent=1))
        return
    (DOCS / "inference.md").write_text(page(kept), encoding="utf-8")
    draw(kept, WAYS, DOCS / "roofline.png")


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a case; whatever is measured runs in a process of its own, because memory is passed on."""

    def start(what: str, way: str, environment: dict[str, str] | None = None) -> Any:
        options = ["--batches", arguments.batches, "--pairs", str(arguments.pairs), "--only", name]
        options += ["--clock", arguments.clock]
        command = [sys.executable, "-W", "ignore", __file__, *options, "--inside", what, way]
        variables = os.environ | (environment or {})
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
        return json.loads(done.stdout)

    found: dict[str, Any] = start("seconds", "all")
    kept = start("seconds", "all", KEEP)
    found["kept"] = kept["seconds"]
    found["peaks"] = {what: max(rate, kept["peaks"][what]) for what, rate in found["peaks"].items()}
    found["memory"] = {way: start("memory", way) for way in WAYS}
    found["work"] = {way: start("work", way) for way in WAYS}
    return found


def inside(what: str, way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    case, batches = Case(arguments.only), [int(batch) for batch in arguments.batches.split(",")]
    if what == "memory":
        loaded = resident("VmRSS")
        large = [batch for batch in batches if batch > 1 or len(batches) == 1]
        return {str(batch): peak_memory(case, way, batch) - loaded for batch in large}
    if what == "work":
        return count(case, way)
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    peaks = [machine_peaks(clock)]
    near = accuracy(case)
    seconds: dict[str, dict[str, list[float]]] = {}
    for batch in batches:
        taken = seconds[str(batch)] = {way: [] for way in WAYS}
        for _ in range(arguments.pairs):
            for each in WAYS:
                case.run(each, 1)
                begin = clock()
                case.run(each, batch)
                taken[each].append((clock() - begin) / batch)
    peaks.append(machine_peaks(clock))
    best = {name: max(peak[name] for peak in peaks) for name in peaks[0]}
    return {"seconds": seconds, "near": near, "peaks": best, "clock": arguments.clock, "threads": threads()}


def machine_peaks(clock: Callable[[], float]) -> dict[str, float]:
    """Return the largest rates of matrix products, in FLOP/s, and of copying, in bytes/s."""
    import torch

    from bulkformer_tl.models import EngineOptions
    from bulkformer_tl.models._products import linear

    size = 2048
    x, copied = torch.randn(size, size), torch.empty(2**26)
    layer = torch.nn.Linear(size, size, bias=False)
    source = torch.randn(2**26)
    with torch.inference_mode():
        packed, low = linear(layer, EngineOptions()), linear(layer, EngineOptions(precision="bf16"))
        rates = {
            "float32, torch.matmul": 2 * size**3 / fastest(clock, lambda: x @ layer.weight),
            "float32, packed by oneDNN": 2 * size**3 / fastest(clock, lambda: packed(x)),
            "bf16, packed by oneDNN": 2 * size**3 / fastest(clock, lambda: low(x.bfloat16())),
            "memory": 8 * 2**26 / fastest(clock, lambda: copied.copy_(source)),
        }
    return rates


def fastest(clock: Callable[[], float], function: Callable[[], Any], repeats: int = 7) -> float:
    taken = []
    for _ in range(repeats):
        begin = clock()
        function()
        taken.append(clock() - begin)
    return min(taken)


def threads() -> int:
    import torch

    return torch.get_num_threads()


def accuracy(case: Case) -> dict[str, tuple[float, float]]:
    """Return the largest difference of a gene vector's entry from the reference modules, and of differences, r."""
    import torch

    values, found = case.values[:3], {}
    options: dict[str, Any] = {"pooling": "mean", "observed_only": False, "outputs": ("pooled", "genes")}
    expected = case.ways["notebook"].encode(values, **options)
    for way in WAYS[1:]:
        got = case.ways[way].encode(values, **options)
        apart = [(pooled - pooled.mean(dim=0)).flatten().double() for pooled in (expected.pooled, got.pooled)]
        r = float(torch.corrcoef(torch.stack(apart))[0, 1])
        found[way] = (float((got.genes - expected.genes).abs().max()), r)
    return found


def peak_memory(case: Case, way: str, batch: int) -> int:
    """Return the largest resident memory while a second batch goes through, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        case.run(way, batch)
    return resident("VmHWM")


def resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def count(case: Case, way: str) -> dict[str, float]:
    """Count the work of a sample in matrix products, and the bytes of tensors that no cache of 8 MiB holds."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from bulkformer_tl.models import EngineOptions

    done = {"flop": 0.0, "bytes": 0.0}

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            tensors = [x for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor)]
            sparse = [x for x in tensors if x.layout != torch.strided]
            name = function.__name__.split(".")[0].rstrip("_")
            if name in {"mm", "bmm", "matmul", "addmm", "baddbmm", "linear"}:
                a, b = args[:2] if name in {"matmul", "linear"} else args[-2:]
                columns = b.shape[0] if name == "linear" else b.shape[-1]
                done["flop"] += 2 * (a.values().numel() if sparse else a.numel()) * columns
            if not function.is_view:
                dense = [x for x in tensors if x.layout == torch.strided]
                large = [x for x in dense if x.untyped_storage().nbytes() > 2**23]
                done["bytes"] += sum(x.numel() * x.element_size() for x in large)
            return result

    case.run(way, 1)
    if way != "notebook":
        # packed products do not say what they multiply
        case.ways[way].engine = EngineOptions(precision=way, packed=False)  # type: ignore[arg-type]
        case.run(way, 1)
    with Counter():  # type: ignore[no-untyped-call]
        case.run(way, 1)
    return done


def rows(name: str, case: dict[str, Any]) -> list[list[str]]:
    found = []
    for batch, taken in case["seconds"].items():
        for way in WAYS:
            kept = case["kept"][batch]
            known = PUBLISHED.get(name, {}).get(int(batch))
            scaled = known and known * PUBLISHED_PEAK / case["peaks"]["float32, torch.matmul"]
            near = case["near"].get(way)
            memory = {each: peak.get(batch) for each, peak in case["memory"].items()}
            found.append(
                [
                    name,
                    batch,
                    way,
                    *(f"{statistics.median(runs[way]):.3g}" for runs in (taken, kept)),
                    *(f"{times_as_fast(runs, way):.1f}" for runs in (taken, kept)),
                    f"{scaled:.3g}" if scaled and way == "notebook" else "",
                    f"{near[0]:.0e}" if near else "",
                    f"{near[1]:.6f}" if near else "",
                    f"{memory[way] / 2**20:.0f}" if memory[way] else "",
                    f"{memory['notebook'] / memory[way]:.1f}" if memory[way] else "",
                ]
            )
    return found


def times_as_fast(runs: dict[str, list[float]], way: str) -> float:
    return statistics.median(a / b for a, b in zip(runs["notebook"], runs[way], strict=True))


def table(results: dict[str, Any]) -> list[str]:
    columns = (
        "network",
        "batch",
        "way",
        "s/sample",
        "memory kept",
        "times as fast",
        "memory kept",
        "published, scaled",
        "largest difference",
        "r of differences",
        "peak MiB",
        "times less",
    )
    lines = []
    for name, case in results.items():
        peaks = ", ".join(f"{what} {rate / 1e9:.0f}" for what, rate in case["peaks"].items() if what != "memory")
        copying = f"copying {case['peaks']['memory'] / 1e9:.0f} GB/s"
        how = (
            f"{case['clock']} clock, {case['threads']} threads"
            if case["threads"] > 1
            else f"{case['clock']} clock, 1 thread"
        )
        lines += [f"{name} ({how}): largest products in this run, GFLOP/s: {peaks}; {copying}.", ""]
        lines += ["| " + " | ".join(columns) + " |", "| --- | --: | --- |" + " --: |" * (len(columns) - 3)]
        lines += ["| " + " | ".join(row) + " |" for row in rows(name, case)] + [""]
    return lines


def page(results: dict[str, Any]) -> str:
    head = [
        "# How fast the engine is",
        "",
        "`python benchmarks/inference.py --results build/inference.json`, then `--write`, makes this page.",
        "",
        *__doc__.splitlines()[2:],
        "",
        "{doc}`../user-guide/how-fast-and-why` says what makes the difference.",
        "",
    ]
    picture = [
        "```{figure} roofline.png",
        ":alt: work per second over work per byte, beneath the limits of memory and of matrix products",
        ":width: 80%",
        "",
        "What a sample needs, per second and per byte of tensors that no cache of 8 MiB holds, at batch 1. Lines are",
        "the limits of this machine. The notebook does more than is needed, which does not count for it.",
        "```",
    ]
    return "\n".join(head + table(results) + picture) + "\n"


if __name__ == "__main__":
    main()
