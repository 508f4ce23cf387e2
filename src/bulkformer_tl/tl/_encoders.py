"""What the networks say of a sample: the model that was asked, and the embedded one beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._vocabulary import GeneMatch, load_vocabulary, match_genes
from bulkformer_tl.tl._held_back import bin_errors, first_by_seed, held_back
from bulkformer_tl.tl._input import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray

    from bulkformer_tl.models import Encoder
    from bulkformer_tl.tl._input import ModelInput

    #: Reads samples, by position, in the model's vocabulary order: (n, G), ``NaN`` where missing.
    Reader = Callable[[NDArray[np.int64]], NDArray[np.float32]]

#: The embedded model, its family, and the least share of its genes that another model has to know for it to help.
PACKAGE, FAMILY = "bulkformer-mini", "mini"
LEAST_SHARE = 0.2
#: Samples that an encoder alone is judged on; large models take half a minute for each on a CPU.
MAX_SAMPLES = 8
#: Share of their measured entries that is hidden for it.
SHARE = 0.15


@dataclass(frozen=True)
class Guess:
    """What the networks predict, unmixed.

    Parameters
    ----------
    expression
        ln(TPM+1), cut at 0, of each network, (C, N, G), float32; ``NaN`` for genes that the network does not know.
    deviation
        The model's own standard deviation, (N, G), or ``None``.
    """

    expression: NDArray[np.float32]
    deviation: NDArray[np.float32] | None

    def sample(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return expression (C, G) and deviation (G,) of one sample."""
        return self.expression[:, row], None if self.deviation is None else self.deviation[row]


@dataclass(frozen=True)
class Encoders:
    """The model, and the embedded one where it is another.

    Parameters
    ----------
    given
        The cohort as the model sees it.
    package
        The embedded model and where its genes stand among the model's, or ``None``.
    """

    given: ModelInput
    package: tuple[Encoder, GeneMatch] | None = None

    @classmethod
    def of(cls, given: ModelInput) -> Self:
        """Add the embedded model if the model is of another family and knows enough of its genes."""
        model = given.model
        # one of the same family has a low-rank part of its own, and may have been trained without this very study
        if model.family == FAMILY:
            return cls(given)
        vocabulary = load_vocabulary(PACKAGE)
        if np.isin(vocabulary.ids, model.vocabulary.ids).mean() < LEAST_SHARE:
            return cls(given)
        package = load_model(PACKAGE)
        return cls(given, (package.to(model.device), match_genes(model.vocabulary.ids.tolist(), vocabulary)))

    def without_values(self) -> Self:
        """Return the same without the cohort."""
        return replace(self, given=self.given.without_values())

    @property
    def models(self) -> list[Encoder]:
        """The models that are run."""
        return [self.given.model, *([] if self.package is None else [self.package[0]])]

    @property
    def checksums(self) -> list[str]:
        """Checksums of the networks."""
        return [model.checksum for model in self.models]

    def __call__(self, values: NDArray[np.float32]) -> Guess:
        """Run the networks on samples (N, G) in the model's vocabulary order, ``NaN`` where missing."""
        gives_deviation = hasattr(self.given.model.network, "deviation")
        own = self.given.encode(values, *(("expression", "deviation") if gives_deviation else ("expression",)))
        # the head of some generations is unconstrained, ln(TPM+1) is not
        found = [own[0].clip(min=0), *([] if self.package is None else [_by_package(*self.package, values)])]
        return Guess(np.stack(found), own[1] if gives_deviation else None)


def _by_package(package: Encoder, match: GeneMatch, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predict the genes that the embedded model knows, (N, G); ``NaN`` also for samples without any of them."""
    predicted = np.full_like(values, np.nan)
    aligned = match.align(values)
    seen = np.flatnonzero(~np.isnan(aligned).all(axis=1))
    if len(seen):
        encoded: Any = package.encode(aligned[seen], outputs=("expression",))
        predicted[np.ix_(seen, match.columns[match.found])] = encoded.expression.numpy()[:, match.found].clip(min=0)
    return predicted


@dataclass(frozen=True)
class Alone:
    """The model's own prediction, with its own deviation or that of hidden entries.

    Parameters
    ----------
    residuals
        Standard deviation by predicted expression, of :func:`bulkformer_tl.tl._held_back.bin_errors`; ``None`` where
        the network gives its own.
    """

    residuals: dict[str, NDArray[np.float64]] | None

    @classmethod
    def fit(cls, encoders: Encoders, read: Reader, seeds: NDArray[np.uint64]) -> Self:
        """Hide measured entries of a few samples and predict them, unless the network knows its deviation."""
        if hasattr(encoders.given.model.network, "deviation"):
            return cls(None)
        predicted, measured = [], []
        rows = first_by_seed(seeds, MAX_SAMPLES)
        values = read(rows)
        held = np.stack([held_back(value, int(seeds[row]), SHARE) for row, value in zip(rows, values, strict=True)])
        for value, hidden in zip(values, held, strict=True):
            (expression,) = encoders.given.encode(np.where(hidden, np.nan, value)[None], "expression")
            predicted.append(expression[0][hidden].clip(min=0))
            measured.append(value[hidden])
        return cls(
            bin_errors(np.concatenate(predicted).astype(np.float64), np.concatenate(measured).astype(np.float64))
        )

    def __call__(self, values: Any, guess: Guess, seeds: Any) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
        """Return mean and standard deviation, (N, G); takes what the blend takes and needs the guess alone."""
        mean = guess.expression[0]
        own: Any = guess.deviation
        residuals = self.residuals
        return mean, own if residuals is None else np.interp(mean, residuals["expression"], residuals["sd"])
