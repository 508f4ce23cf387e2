"""How long a user waits before anything happens, each time in a new process, on two threads.

``nox -s bench -- benchmarks/startup.py``. What ``import bulkformer_tl`` adds to ``import anndata`` (aim: 0.5 s), bare
and with its namespaces; from the first call to sample vectors of 100 samples with the embedded model (aim: 5 s), which
imports PyTorch and loads the model; and loading a bundle of the size of the 147M model (aim: 3 s), random weights in
a temporary folder, with the share of its weights that stay in the file until they are used. Files are read once
before, so that the disk does not count. Beside the clock on the wall stands the time of the processor, which other
work on the machine does not lengthen.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPEATS = 3
CLOCK = """
import json, sys, time
from pathlib import Path

def clocks():
    return time.perf_counter(), time.process_time()

def since(start):
    return [now - then for now, then in zip(clocks(), start)]
"""
IMPORTS = """
import anndata
start = clocks()
import bulkformer_tl
bare = since(start)
bulkformer_tl.pp, bulkformer_tl.tl, bulkformer_tl.pl, bulkformer_tl.datasets, bulkformer_tl.settings
print(json.dumps([bare, since(start)]))
"""
FIRST_RESULT = """
import anndata
import bulkformer_tl as bf
bf.settings.progress = False
adata = anndata.read_h5ad(sys.argv[1])
start = clocks()
bf.tl.embed(adata, layer="log_tpm", device="cpu")
print(json.dumps([since(start)]))
"""
BUNDLE = """
import bulkformer_tl as bf
bf.models.load
start = clocks()
model = bf.models.load(sys.argv[1], device="cpu")
taken = since(start)
weights = sum(tensor.nbytes for tensor in model.network.state_dict().values())
regions = [line.split()[0].split("-") for line in Path("/proc/self/maps").open() if "model.safetensors" in line]
starts, ends = ([int(region[i], 16) for region in regions] for i in (0, 1))
mapped = sum(
    tensor.nbytes for tensor in model.network.state_dict().values()
    if any(start <= tensor.data_ptr() < end for start, end in zip(starts, ends))
)
print(json.dumps([taken, [weights / 2**20, mapped / weights]]))
"""


def main() -> None:
    import bulkformer_tl as bf

    with tempfile.TemporaryDirectory() as folder:
        cohort, bundle = Path(folder) / "cohort.h5ad", Path(folder) / "bundle"
        adata = bf.datasets.toy(100)
        bf.pp.log_tpm(adata)
        adata.write_h5ad(cohort)
        subprocess.run([sys.executable, "-W", "ignore", "-c", WRITE_BUNDLE, bundle], check=True)
        bare, spaces = measure(IMPORTS)
        (first,) = measure(FIRST_RESULT, cohort)
        loaded, (size, mapped) = measure(BUNDLE, bundle)
    rows = [
        ("import bulkformer_tl, after anndata", bare, 0.5),
        ("the same and pp, tl, pl, datasets", spaces, None),
        ("first call: 100 samples", first, 5.0),
        (f"load a bundle of {size:,.0f} MiB, {mapped:.0%} mapped", loaded, 3.0),
    ]
    print("| | seconds | of the processor | aim |\n| --- | --: | --: | --: |")
    for name, (wall, processor), aim in rows:
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {aim or ''} |")


def measure(code: str, *arguments: Path) -> list[list[float]]:
    """Return the medians over new processes, after one that does not count."""
    runs = [run(code, *arguments) for _ in range(REPEATS + 1)][1:]
    return [[statistics.median(values) for values in zip(*parts, strict=True)] for parts in zip(*runs, strict=True)]


def run(code: str, *arguments: Path) -> list[list[float]]:
    command = [sys.executable, "-W", "ignore", "-c", CLOCK + code, *map(str, arguments)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
    found: list[list[float]] = json.loads(done.stdout)
    return found


WRITE_BUNDLE = """
import sys
import numpy as np, torch
from bulkformer_tl import models
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._paper import PaperConfig, PaperNetwork

genes = 20010
network = PaperNetwork(PaperConfig(genes, dim=640, n_performers=12))
edges = torch.stack([torch.arange(genes).repeat_interleave(20), torch.randint(0, genes, (genes * 20,))])
model = models.BulkFormer(
    network, GeneVocabulary(np.array([f"ENSG{i:011}" for i in range(genes)])), graph=(edges, torch.rand(genes * 20)),
    name="random", family="g2", denominator="all", checksum="",
)
models.convert(model, sys.argv[1])
"""

if __name__ == "__main__":
    main()
