"""A training step as ``bf.train.pretrain`` takes it beside one through the plain modules (``fast=False``), in one run.

``nox -s bench -- benchmarks/training.py [--quick]``, on ``OMP_NUM_THREADS`` threads. A step is forward, backward and
AdamW on random expression of which 15 % is hidden, with random weights and a random graph of 20 edges per gene, dropout
at 0. Seconds are medians of steps in turns, plain and fast. Memory is the largest resident memory of a process that
takes two steps in one way only, less what was resident before them: activations, gradients and the optimiser's state.
The last column is the largest difference of an entry of a gradient relative to the largest entry of all gradients.

With a GPU one more table: tokens per second at the size of the 147M model in bfloat16, and the share of the largest
throughput of a bfloat16 matrix product that the same GPU reached in the same run. Work is what the fast pass needs
without recomputation, as torch's FlopCounterMode counts it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS = ("plain", "fast")
HIDDEN = 0.15
EDGES = 20
#: Without it, only hidden genes are needed in the last layer and the head.
FREE = {"mean_correction": False}
#: Name -> family, genes, sizes, batch size, objective. Depth is cut where the plain way would not fit into this memory.
CASES: dict[str, tuple[str, int, dict[str, Any], int, str]] = {
    "37M": ("g2", 20010, {"dim": 128}, 1, "mse"),
    "37M, no mean correction": ("g2", 20010, {"dim": 128, **FREE}, 1, "mse"),
    "37M, batch of 4": ("g2", 20010, {"dim": 128}, 4, "mse"),
    "37M, batch of 4, no mean correction": ("g2", 20010, {"dim": 128, **FREE}, 4, "mse"),
    "37M, batch of 4, no mean correction, NLL": ("g2", 20010, {"dim": 128, **FREE}, 4, "gaussian_nll"),
    "50M": ("g2", 20010, {"dim": 256, "n_performers": 2}, 1, "mse"),
    "50M, no mean correction": ("g2", 20010, {"dim": 256, "n_performers": 2, **FREE}, 1, "mse"),
    "latest, 2 of 12 layers": ("g3", 19973, {"depth": 2}, 1, "mse"),
    "latest, 2 of 12 layers, NLL": ("g3", 19973, {"depth": 2}, 1, "gaussian_nll"),
}
SMALL: dict[str, dict[str, Any]] = {
    "g2": {"dim": 64, "n_performers": 2, **FREE},
    "g3": {"dim": 64, "depth": 2, "heads": 2, "dim_head": 32},
}
QUICK = {
    f"{family}, 2,000 genes, batch of {batch}, {objective}": (family, 2000, sizes, batch, objective)
    for family, sizes in SMALL.items()
    for batch in (1, 4)
    for objective in ("mse", "gaussian_nll")
}
LARGEST = ("g2", 20010, {"dim": 640, "n_performers": 12}, 4, "mse")


class Training:
    """A new network, a batch, an objective in both ways and an optimiser."""

    def __init__(
        self, family: str, genes: int, sizes: dict[str, Any], batch: int, objective: str, *, device: str = "cpu"
    ) -> None:
        import torch

        from bulkformer_tl.models._families import family_classes, make_config
        from bulkformer_tl.train._objectives import OBJECTIVES

        torch.manual_seed(0)
        _, network = family_classes(family)
        self.objectives = {way: OBJECTIVES[objective](fast=way == "fast") for way in WAYS}
        given = {"n_genes": genes, **self.objectives["fast"].network, **sizes}
        self.network = network(make_config(family, given)).train().to(device)
        for module in self.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if family == "g2":
            # a ReLU that starts below zero would have no gradient to compare
            self.network.head[3].bias.data.fill_(3.0)
        edges = torch.stack([torch.arange(genes).repeat_interleave(EDGES), torch.randint(0, genes, (genes * EDGES,))])
        self.network.set_graph(edges, torch.rand(genes * EDGES))
        collated = self.objectives["fast"].collate(
            (torch.rand(batch, genes) * 8).numpy(), (torch.rand(batch, genes) < HIDDEN).numpy()
        )
        self.batch = {name: tensor.to(device) for name, tensor in collated.items()}
        self.optimizer = torch.optim.AdamW((p for p in self.network.parameters() if p.requires_grad), fused=True)

    def backward(self, way: str) -> None:
        self.optimizer.zero_grad()
        self.objectives[way].losses(self.network, self.batch).mean().backward()

    def step(self, way: str) -> float:
        start = time.perf_counter()
        self.backward(way)
        self.optimizer.step()
        return time.perf_counter() - start

    def gradients(self, way: str) -> dict[str, Any]:
        self.backward(way)
        return {name: p.grad.clone() for name, p in self.network.named_parameters() if p.grad is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--pairs", type=int, default=3, help="steps of each way that are timed")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--inside", nargs=3, metavar=("WHAT", "CASE", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        what, name, way = arguments.inside
        if what == "gpu":
            on_gpu()
            return
        training = Training(*(CASES | QUICK)[name])
        print(json.dumps(peak(training, way) if what == "peak" else compare(training, arguments.pairs)))
        return
    columns = ("network", "pass", "s/step", "samples/s", "times as fast", "peak memory, MiB", "share of it")
    print("| " + " | ".join((*columns, "largest difference of a gradient")) + " |")
    print("| --- | --- |" + " --: |" * (len(columns) - 1), flush=True)
    for name in QUICK if arguments.quick else CASES:
        if arguments.only is None or arguments.only in name:
            report(name, arguments.pairs)
    subprocess.run([sys.executable, "-W", "ignore", __file__, "--inside", "gpu", "", ""], check=True)


def report(name: str, pairs: int) -> None:
    """Print the rows of a case; whatever is measured runs in a process of its own, because memory is passed on."""
    seconds, differences = in_new_process("steps", name, "all", pairs)
    memory = {way: in_new_process("peak", name, way, pairs) for way in WAYS}
    samples = (CASES | QUICK)[name][3]
    for way in WAYS:
        ratio = statistics.median(a / b for a, b in zip(seconds["plain"], seconds[way], strict=True))
        taken = statistics.median(seconds[way])
        print(
            f"| {name} | {way} | {taken:.2f} | {samples / taken:.2f} | {ratio:.2f} | {memory[way] / 2**20:.0f} | "
            f"{memory[way] / memory['plain']:.2f} | {differences[way]:.0e} |",
            flush=True,
        )


def in_new_process(what: str, name: str, way: str, pairs: int) -> Any:
    command = [sys.executable, "-W", "ignore", __file__, "--pairs", str(pairs), "--inside", what, name, way]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def compare(training: Training, pairs: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the seconds of steps in turns, and the largest difference of a gradient relative to the largest entry."""
    expected = training.gradients("plain")
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    differences = {}
    for way in WAYS:
        found = training.gradients(way)
        differences[way] = max(float((found[key] - expected[key]).abs().max()) for key in expected) / largest
    del expected, found
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(pairs):
        for way in WAYS:
            seconds[way].append(training.step(way))
    return seconds, differences


def peak(training: Training, way: str) -> int:
    """Return how much resident memory two steps take beyond what is resident before, in bytes."""
    from bulkformer_tl._progress import peak_memory

    statm = Path("/proc/self/statm")
    # elsewhere the largest so far has to do, which is the same as long as building the network needs little beside it
    before = int(statm.read_text().split()[1]) * 4096 if statm.exists() else peak_memory()
    for _ in range(2):
        training.step(way)
    return peak_memory() - before


def on_gpu() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not torch.cuda.is_available():
        print("\nno GPU here: no tokens per second at 147M")
        return
    training = Training(*LARGEST, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        with FlopCounterMode(display=False) as counter:
            training.step("fast")
        per_step = {way: gpu_seconds(lambda way=way: training.step(way)) for way in WAYS}
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    largest = 2 * 8192**3 / gpu_seconds(lambda: a @ b)
    print(f"\n| 147M on {torch.cuda.get_device_name()} | tokens/s | share of {largest / 1e12:.0f} TFLOP/s |")
    print("| --- | --: | --: |")
    for way, seconds in per_step.items():
        share = counter.get_total_flops() / seconds / largest
        print(f"| {way} | {training.batch['values'].numel() / seconds:,.0f} | {share:.1%} |")


def gpu_seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    import torch

    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
