"""Imputation by the encoder, the embedded low-rank model and the cohort's own means and factors together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._progress import Progress
from bulkformer_tl.tl._cohort import Cohort
from bulkformer_tl.tl._held_back import MIN_ENTRIES, first_by_seed, held_back
from bulkformer_tl.tl._mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from bulkformer_tl.tl._encoders import Encoders, Guess, Reader
    from bulkformer_tl.tl._mixture import Held

    Doubles = NDArray[np.float64]
    #: Expression (C, G) and the model's own deviation (G,), where it gives one, of one sample.
    OneGuess = tuple[NDArray[np.float32], NDArray[np.float32] | None]
    #: Predictions (C, G) and variances (Q, G) of one sample.
    Sources = tuple[Doubles, Doubles]

#: Samples that the cohort's factors are fitted on, and runs of the networks on those of them that are judged.
MAX_SAMPLES, N_TRIALS = 256, 24
#: Shares of a judged sample's measured entries that are hidden, in turn.
RATES = (0.9, 0.5, 0.15)
#: Least error of a sample's best prediction, ln(TPM+1).
LEAST_ERROR = 1e-3


@dataclass(frozen=True)
class Blend:
    """The blend of :func:`bulkformer_tl.tl.impute`, fitted.

    Parameters
    ----------
    checksums
        Of the networks, the model's first.
    cohort
        Means and factors.
    offsets
        What each of the C networks misses at each gene in this cohort, for each of the cohort's F fits, (F, C, G).
    shares
        Visible shares of the model's genes at which the mixtures were fitted, increasing, (R,).
    measured, absent
        Mixtures for genes that other samples of the cohort measure and for those that none does.
    """

    checksums: list[str]
    cohort: Cohort
    offsets: NDArray[np.float32]
    shares: NDArray[np.float64]
    measured: Mixture
    absent: Mixture

    def __call__(
        self, values: NDArray[np.float32], guess: Guess, seeds: NDArray[np.uint64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict all genes of samples.

        Parameters
        ----------
        values
            Shape (N, G), ``NaN`` where missing.
        guess
            What the networks predict for them.
        seeds
            Numbers of their names.

        Returns
        -------
        Mean, cut at 0, and standard deviation, (N, G).
        """
        mean, deviation = np.empty(values.shape), np.empty(values.shape)
        for row, sample in enumerate(values):
            which = self.cohort.fit_for(seeds[row])
            known = self.cohort.knows(which)
            at = float(np.interp(np.mean(~np.isnan(sample)), self.shares, np.arange(len(self.shares))))
            with_cohort = _with_cohort(guess.sample(row), sample, self.cohort, self.offsets, which)
            for genes, mixture, sources in (
                (known, self.measured, with_cohort),
                (~known, self.absent, _without_cohort(guess.sample(row))),
            ):
                if genes.any():
                    predictions, variances = (source[:, genes] for source in sources)
                    mean[row, genes], deviation[row, genes] = mixture.predict(predictions, variances, at)
        return mean, deviation

    def to_dict(self) -> dict[str, Any]:
        """Return plain arrays, which AnnData writes to files."""
        parts = {name: getattr(self, name).to_dict() for name in ("cohort", "measured", "absent")}
        checksums = np.array(self.checksums, dtype=object)
        return {"checksums": checksums, "offsets": self.offsets, "shares": self.shares, **parts}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], encoders: Encoders) -> Self:
        """Build from what :meth:`to_dict` gave, also after a file.

        Raises
        ------
        ValueError
            If it is no such thing, or was fitted with another model.
        """
        try:
            blend = cls(
                checksums=[str(checksum) for checksum in stored["checksums"]],
                cohort=Cohort.from_dict(stored["cohort"]),
                offsets=np.asarray(stored["offsets"]),
                shares=np.asarray(stored["shares"]),
                measured=Mixture.from_dict(stored["measured"]),
                absent=Mixture.from_dict(stored["absent"]),
            )
        except (KeyError, TypeError, IndexError) as error:
            message = "blend takes True, False, or the adata.uns[key_added]['blend'] that an earlier bf.tl.impute left"
            raise ValueError(message) from error
        if blend.checksums != encoders.checksums:
            message = (
                f"this blend was fitted with another model than {encoders.given.model.name}; "
                "pass model= that it was fitted with, or blend=True"
            )
            raise ValueError(message)
        return blend


def fit_blend(
    encoders: Encoders, read: Reader, seeds: NDArray[np.uint64], *, groups: NDArray[Any] | None = None
) -> Blend | None:
    """Fit the blend on entries held back from a bounded set of samples.

    The cohort's means and factors come from at most 256 samples, those whose names hash lowest. Up to 24 of them are
    predicted, 24 times in all, with 90, 50 or 15 % of their measured entries hidden, by fits on the other folds, as
    they will be where their entries are missing.

    Parameters
    ----------
    encoders
        The networks.
    read
        Reads samples.
    seeds
        Numbers of the samples' names, (N,).
    groups
        What each sample belongs to, (N,); samples of a group then learn nothing from each other.

    Returns
    -------
    The blend; ``None`` if too few entries are measured to fit one.
    """
    rows = first_by_seed(seeds, MAX_SAMPLES)
    values, samples = read(rows), seeds[rows]
    cohort = Cohort.fit(values, samples, None if groups is None else groups[rows])
    trials = list(_trials(encoders, values, samples))
    offsets = np.stack([_offsets(trials, cohort, which) for which in range(len(cohort.means))])
    by_rate = [[trial for trial in trials if trial.rate == rate] for rate in range(len(RATES))]
    absent = [_gather([_held_without(trial) for trial in part]) for part in by_rate]
    measured = [_gather([_held_with(trial, cohort, offsets) for trial in part]) for part in by_rate]
    if not _enough(absent):
        return None
    without = Mixture.fit(absent)
    shares = np.array([np.mean([np.mean(~np.isnan(trial.shown)) for trial in part]) for part in by_rate])
    if _enough(measured):
        return Blend(encoders.checksums, cohort, offsets, shares, Mixture.fit(measured), without)
    nothing = Cohort.empty(samples, values.shape[1])
    return Blend(encoders.checksums, nothing, offsets[-1:], shares, without, without)


@dataclass(frozen=True)
class _Trial:
    """A judged sample with entries held back, and what the networks predict."""

    position: int
    rate: int
    sample: np.uint64
    truth: NDArray[np.float32]
    held: NDArray[np.bool_]
    guess: OneGuess

    @property
    def shown(self) -> NDArray[np.float32]:
        """The sample without what was held back, (G,)."""
        return np.where(self.held, np.float32(np.nan), self.truth)


def _trials(encoders: Encoders, values: NDArray[np.float32], samples: NDArray[np.uint64]) -> Iterator[_Trial]:
    # many samples once rather than a few at every rate: the offsets get better by the number of samples
    passes = [
        (row, (row + turn) % len(RATES)) for turn in range(len(RATES)) for row in range(min(len(values), N_TRIALS))
    ]
    with Progress(len(passes[:N_TRIALS]), "blend") as progress:
        for row, rate in passes[:N_TRIALS]:
            truth, sample = values[row], samples[row]
            held = held_back(truth, [int(sample), rate], RATES[rate])
            guess = encoders(np.where(held, np.float32(np.nan), truth)[None])
            yield _Trial(row, rate, sample, truth, held, guess.sample(0))
            progress.update(1)


def _offsets(trials: Sequence[_Trial], cohort: Cohort, which: int) -> NDArray[np.float32]:
    """Return each network's mean error at each gene, (C, G), over judged samples that a fit has seen.

    The error of a sample is averaged over its rates first; the mean is shrunk by one sample without error.
    """
    total: Any = 0.0
    count: Any = 0
    for position in sorted({trial.position for trial in trials}):
        own = [trial for trial in trials if trial.position == position]
        if not cohort.has_seen(own[0].sample, which):
            continue
        errors = np.stack([np.where(trial.held, trial.truth - trial.guess[0], np.nan) for trial in own])
        measured = np.isfinite(errors)
        sums = np.where(measured, errors, 0).sum(axis=0, dtype=np.float64)
        total = total + sums / np.maximum(measured.sum(axis=0), 1)
        count = count + measured.any(axis=0)
    shape = trials[0].guess[0].shape
    return np.broadcast_to(total / (count + 1), shape).astype(np.float32)


def _with_cohort(
    guess: OneGuess, sample: NDArray[np.float32], cohort: Cohort, offsets: NDArray[np.float32], which: int
) -> Sources:
    """Return what networks, networks with their offset, cohort means and factors say; ``NaN`` where unmeasured."""
    simple = cohort.predict(sample, which)
    expression = np.where(np.isnan(guess[0]), simple[1], guess[0])
    variances = [cohort.noise[which]] if guess[1] is None else [guess[1] ** 2, cohort.noise[which]]
    return np.vstack([expression, expression + offsets[which], simple]), np.vstack(variances).astype(np.float64)


def _without_cohort(guess: OneGuess) -> Sources:
    """Return what the networks say; the model stands in where the embedded one does not know the gene."""
    expression = np.where(np.isnan(guess[0]), guess[0][:1], guess[0]).astype(np.float64)
    variances = np.empty((0, expression.shape[1])) if guess[1] is None else guess[1][None].astype(np.float64) ** 2
    return expression, variances


def _held_with(trial: _Trial, cohort: Cohort, offsets: NDArray[np.float32]) -> Held:
    which = cohort.fit_for(trial.sample)
    sources = _with_cohort(trial.guess, trial.shown, cohort, offsets, which)
    return _held(*sources, trial.truth, trial.held & cohort.knows(which))


def _held_without(trial: _Trial) -> Held:
    return _held(*_without_cohort(trial.guess), trial.truth, trial.held)


def _held(predictions: Doubles, variances: Doubles, truth: NDArray[np.float32], genes: NDArray[np.bool_]) -> Held:
    """Take the genes that were held back; a sample weighs by the inverse of the error of its best prediction.

    Squared errors of one sample unlike all others would outweigh those of the rest.
    """
    chosen, true = predictions[:, genes], truth[genes].astype(np.float64)
    least = np.sqrt(((chosen - true) ** 2).mean(axis=1)).min() if genes.any() else 1.0
    return chosen, variances[:, genes], true, np.full(len(true), 1 / max(least, LEAST_ERROR))


def _gather(parts: Sequence[Held]) -> Held:
    predictions, variances, truth, weight = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return predictions, variances, truth, weight


def _enough(held: Sequence[Held]) -> bool:
    return min(len(truth) for _, _, truth, _ in held) >= MIN_ENTRIES
