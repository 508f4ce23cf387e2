"""A corpus of many studies: checked once, divided by study, read in an order that a seed decides."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._anndata import BLOCK_ROWS
from bulkformer_tl._progress import Progress
from bulkformer_tl.encodings import find_fault
from bulkformer_tl.train._masks import ORDER, SPLIT
from bulkformer_tl.train._sources import Samples, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneVocabulary

logger = logging.getLogger(__name__)

#: What :func:`bulkformer_tl.train.pretrain` takes for a corpus.
type CorpusLike = "AnnData | str | Path | Source | Sequence[AnnData | str | Path | Source]"


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each gene over the training samples that measure it, shape (G,); 0 and 1 where none does."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]


class Corpus:
    """Samples of all sources on the genes of a network.

    Parameters
    ----------
    sources
        One or several; they are put in the order of their names, so that theirs does not matter.
    vocabulary
        Genes G of the network.
    columns
        Columns of ``obs`` to keep.

    Raises
    ------
    ValueError
        If there is no source, two share a name, or one cannot be read or shares no gene with the vocabulary.
    """

    def __init__(self, sources: CorpusLike, vocabulary: GeneVocabulary, columns: Sequence[str] = ()) -> None:
        listed: Any = list(sources) if isinstance(sources, list | tuple) else [sources]
        if not listed:
            message = "the corpus is empty; pass AnnData objects, or paths of h5ad files or zarr stores"
            raise ValueError(message)
        asked = [item if isinstance(item, Source) else Source(item) for item in listed]
        opened = [Samples(item, vocabulary, f"source_{i + 1}", columns) for i, item in enumerate(asked)]
        self.sources = sorted(opened, key=lambda samples: samples.name)
        names = [samples.name for samples in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            message = f"several sources are called {twice[0]!r}; tell them apart: bf.train.Source(data, name=...)"
            raise ValueError(message)
        self.vocabulary = vocabulary
        self.offsets = np.cumsum([0, *(samples.n_obs for samples in self.sources)])
        self.studies: NDArray[Any] = np.concatenate([samples.studies for samples in self.sources])
        self.columns = {name: np.concatenate([samples.columns[name] for samples in self.sources]) for name in columns}
        #: Codes of external tokens, (N, E), int64, for networks that have such tokens.
        self.codes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self.offsets[-1])

    @property
    def checksum(self) -> str:
        """SHA-256 of the genes, the sources' names and sizes and the samples' studies."""
        parts = [self.vocabulary.checksum, *(f"{s.name} {s.n_obs} {s.zeros.sum()}" for s in self.sources)]
        return hashlib.sha256("\n".join([*parts, *self.studies]).encode()).hexdigest()

    @property
    def denominators(self) -> set[str]:
        """Over which genes the TPM of the sources ran, as far as they say."""
        return {samples.denominator for samples in self.sources if samples.denominator is not None}

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return samples in vocabulary order, (len(rows), G), ``NaN`` where missing.

        Samples that lie side by side in a source, and here, are read in one piece.
        """
        values = np.empty((len(rows), len(self.vocabulary)), dtype=np.float32)
        source = np.searchsorted(self.offsets, rows, side="right") - 1
        starts = np.flatnonzero(np.r_[True, (np.diff(rows) != 1) | (np.diff(source) != 0)])
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            first = int(rows[start] - self.offsets[source[start]])
            values[start:stop] = self.sources[source[start]].read(first, first + int(stop - start))
        return values

    def blocks(self, description: str) -> Iterator[tuple[Samples, slice, slice]]:
        """Yield sources, blocks of their rows and these rows' places in the corpus, with a progress bar."""
        with Progress(len(self), description) as progress:
            for samples, offset in zip(self.sources, self.offsets, strict=False):
                for begin in range(0, samples.n_obs, BLOCK_ROWS):
                    end = min(begin + BLOCK_ROWS, samples.n_obs)
                    yield samples, slice(begin, end), slice(int(offset) + begin, int(offset) + end)
                    progress.update(end - begin)
                samples.close()

    def scan(self, training: NDArray[np.bool_]) -> Moments:
        """Check every value, say what each source measures, and return the moments of the training samples.

        Parameters
        ----------
        training
            Which samples are trained on, shape (N,).

        Raises
        ------
        ValueError
            If a source does not hold ln(TPM+1); the message names the call that mends it.
        """
        n_genes = len(self.vocabulary)
        count, total, squares = (np.zeros(n_genes) for _ in range(3))
        with Progress(len(self), "check the corpus") as progress:
            for samples, offset in zip(self.sources, self.offsets, strict=False):
                whole = True
                for start in range(0, samples.n_obs, BLOCK_ROWS):
                    block = samples.read(start, min(start + BLOCK_ROWS, samples.n_obs))
                    fault, block_whole = find_fault(block)
                    whole &= block_whole
                    if fault is not None:
                        message = f"{samples.where} is not ln(TPM+1): row {start + fault[0]} {fault[1]}{samples.hint}"
                        raise ValueError(message)
                    chosen = block[training[offset + start : offset + start + len(block)]].astype(np.float64)
                    measured = ~np.isnan(chosen)
                    filled = np.where(measured, chosen, 0.0)
                    count += measured.sum(axis=0)
                    total += filled.sum(axis=0)
                    squares += np.square(filled).sum(axis=0)
                    progress.update(len(block))
                samples.close()
                if whole:
                    message = (
                        f"{samples.where} is not ln(TPM+1): all its values are whole numbers, as counts are; "
                        f"call bf.pp.log_tpm(adata) first{samples.hint}"
                    )
                    raise ValueError(message)
                _report(samples)
        seen = np.maximum(count, 1)
        mean = total / seen
        variance = np.where(count > 1, np.maximum(squares / seen - mean**2, 1e-4), 1.0)
        return Moments(mean.astype(np.float32), variance.astype(np.float32))

    def split(self, validation: float | tuple[str, ...], seed: int) -> NDArray[np.bool_]:
        """Return which samples are trained on, shape (N,): those of studies that are not left out.

        Parameters
        ----------
        validation
            Studies to leave out, or the share of the samples to aim at.
        seed
            Draws studies where a share is given.

        Raises
        ------
        ValueError
            If there is only one study, or a name is none, or none is left to train on.
        """
        names, sizes = np.unique(self.studies, return_counts=True)
        if len(names) == 1:
            message = (
                f"the corpus is a single study, {str(names[0])!r}, and validation leaves whole studies out; pass "
                "several sources, or the obs column that tells studies apart: bf.train.Source(data, study='batch')"
            )
            raise ValueError(message)
        if not isinstance(validation, float | int):
            unknown = sorted(set(validation) - set(names))
            if unknown or set(names) <= set(validation):
                found = f"{unknown} are none of them" if unknown else "all of them are left out"
                message = f"the corpus has the studies {names[:10].tolist()} ({len(names)} in all); {found}"
                raise ValueError(message)
            left_out: list[str] = list(validation)
        else:
            left_out = _draw_studies(names, sizes, validation, seed)
        return ~np.isin(self.studies, left_out)


class Order:
    """The endless order in which training samples come, a function of the seed alone.

    Parameters
    ----------
    training
        Which samples of the corpus are trained on, shape (N,).
    offsets
        Where each source begins.
    read_together
        Samples that stay side by side.
    seed
        Of the run.
    """

    def __init__(self, training: NDArray[np.bool_], offsets: NDArray[np.int64], read_together: int, seed: int) -> None:
        self.rows = np.flatnonzero(training)
        self._seed = seed
        # a run of neighbours never goes over a gap or the end of a source
        source = np.searchsorted(offsets, self.rows, side="right")
        fresh = np.r_[True, (np.diff(self.rows) != 1) | (np.diff(source) != 0)]
        first = np.maximum.accumulate(np.where(fresh, np.arange(len(self.rows)), 0))
        starts = np.flatnonzero((np.arange(len(self.rows)) - first) % read_together == 0)
        self._runs = np.stack([starts, np.append(starts[1:], len(self.rows))], axis=1)
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache behind."""
        return {key: value for key, value in self.__dict__.items() if key != "_permutation"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with an empty cache."""
        self.__dict__.update(state)
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the corpus at positions of the order, counted over all epochs."""
        epochs, within = np.divmod(positions, len(self.rows))
        rows = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._permutation(int(epoch))[within[chosen]]
        return rows

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        runs = self._runs[np.random.default_rng([self._seed, ORDER, epoch]).permutation(len(self._runs))]
        if len(runs) == len(self.rows):
            return np.asarray(self.rows[runs[:, 0]])
        rows: NDArray[np.int64] = np.concatenate([self.rows[start:stop] for start, stop in runs])
        return rows


def _draw_studies(names: NDArray[Any], sizes: NDArray[np.int64], share: float, seed: int) -> list[str]:
    """Draw studies until their samples are about the share; never one that would make it more than twice that."""
    wanted, taken = share * sizes.sum(), 0
    chosen: list[str] = []
    for i in np.random.default_rng([seed, SPLIT]).permutation(len(names)):
        if taken < wanted and taken + sizes[i] <= 2 * wanted and len(chosen) + 1 < len(names):
            chosen.append(str(names[i]))
            taken += int(sizes[i])
    return chosen or [str(names[np.argmin(sizes)])]


def _report(samples: Samples) -> None:
    n_genes, n_found, n_zeros = len(samples.match.columns), samples.match.n_found, int(samples.zeros.sum())
    logger.info(
        "%s: %d samples of %d studies; %d of %d genes measured, %d absent ones are zeros by its annotation, %d missing",
        samples.name,
        samples.n_obs,
        len(np.unique(samples.studies)),
        n_found,
        n_genes,
        n_zeros,
        n_genes - n_found - n_zeros,
    )
