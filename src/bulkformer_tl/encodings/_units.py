"""Recognise the unit of expression values from the values alone, on arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bulkformer_tl.encodings._log_tpm import MILLION, Base, from_log
from bulkformer_tl.encodings._scaling import SCALINGS, have_one_distribution, recognise_scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

Quantity = Literal["counts", "expected_counts", "scaled_counts", "cpm", "tpm", "fpkm", "tpm_or_fpkm", "unknown"]

#: Steepest first: of the bases that leave plausible sums, the steepest is the true one.
POWERS: dict[Base, float] = {"10": 10.0, "e": float(np.e), "2": 2.0}
BASES: tuple[Base, ...] = tuple(POWERS)

#: Logarithms of expression stay below it in every base (log2 of a base-pair coverage sum is 29); linear values do not.
MAX_LOG = 30.0

#: Relative spread of the samples' sums that counts as "the same sum", rounding of the file included.
SAME_SUM = 0.005

#: TPM summed over their own genes give a million; profiles averaged after scaling exceed it a little.
MAX_TPM_SUM = 1.05e6

#: Sum of linear values over what the corpus mean expects of these genes. On the 56 cohorts that it was chosen on, TPM
#: reach 1.3 to 2.7 and FPKM 0.3 to 1.7; log2 values read as natural logarithms start at 2.8 (one cohort of NX values
#: at 1.3), natural ones read as log10 at 56.
MAX_RATIO = 2.9

#: Median sum beyond which logarithms were undone with too steep a base; 56 cohorts of TPM and FPKM reach a million.
MAX_SUM = 1.3e6

#: Least number of genes in the corpus mean for that comparison.
MIN_KNOWN = 1000

#: Reads of one bulk library rarely pass it; base-pair coverage sums do.
MAX_READS = 2.5e8

#: The marker of missing genes in published files.
MARKER = -10.0

_QUANTILES = "all samples have one distribution, as quantile normalisation makes; the sums tell nothing"

#: What people add before they take a logarithm.
PSEUDOCOUNTS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Unit:
    """What values are, and how that was found out.

    Parameters
    ----------
    quantity
        What was measured, without logarithm.
    base
        Of the logarithm; ``None`` where there is none.
    pseudocount
        That was added before the logarithm.
    reason
        The facts that decided.
    question
        What to ask the data's author where the values cannot decide; empty where they do.
    denominator
        The genes that sum to a million in every sample; ``None`` where none do.
    """

    quantity: Quantity
    base: Base | None = None
    pseudocount: float = 1.0
    reason: str = ""
    question: str = ""
    denominator: Literal["vocabulary", "all"] | None = None

    @property
    def name(self) -> str:
        """Short name, ``"counts"``, ``"log2_tpm"`` or ``"log_cpm"`` (natural) for example."""
        prefix = {None: "", "e": "log_", "2": "log2_", "10": "log10_"}[self.base]
        return prefix + self.quantity

    @property
    def is_log_tpm(self) -> bool:
        """Whether this is ln(TPM+1) over the genes of the vocabulary, what models read."""
        return self.name == "log_tpm" and self.pseudocount == 1 and self.denominator == "vocabulary"


@dataclass(frozen=True)
class GeneFacts:
    """What is known of the columns; every array has shape (G,).

    Parameters
    ----------
    lengths
        In bp, ``NaN`` where unknown.
    expected
        TPM in an average sample, ``NaN`` where unknown.
    vocabulary
        Whether the model knows them; TPM may sum to a million over these genes alone.
    """

    lengths: NDArray[np.float64]
    expected: NDArray[np.float64]
    vocabulary: NDArray[np.bool_]


def recognise(values: NDArray[np.float64], genes: GeneFacts) -> Unit:
    """Recognise the unit of a few samples.

    Parameters
    ----------
    values
        Shape (N, G); ``NaN`` and infinite entries are left out.
    genes
        What is known of the columns.

    Returns
    -------
    The unit. What the values leave open is in its ``question``.

    Notes
    -----
    The facts, from the strongest to the weakest: counts are whole numbers, and counts scaled by one factor per sample
    are whole multiples of the sample's smallest value; TPM, CPM and the like have the same sum in every sample, but
    only before the logarithm and in its true base; TPM sum to at most a million; counts grow in proportion to gene
    length, TPM and FPKM do not.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    present = values[~np.isnan(values)]
    if not present.size or not present.any():
        return Unit("unknown", reason="no value differs from zero" if present.size else "there is no finite value")
    if (present < 0).any():
        return _recognise_signed(values, present, genes)
    if bool((present == np.floor(present)).all()):
        return _recognise_whole(values, present)
    if have_one_distribution(values):
        return Unit("unknown", reason=_QUANTILES, question="for the read counts or TPM from before that step")
    return _recognise_log(values, genes) if present.max() <= MAX_LOG else _recognise_linear(values, genes)


def _recognise_whole(values: NDArray[np.float64], present: NDArray[np.float64]) -> Unit:
    top = present.max()
    if top <= MAX_LOG:
        return Unit(
            "unknown",
            reason=f"whole numbers, none above {top:.0f}, as bins, ranks, calls or rounded logarithms are",
            question="what these numbers are, and for the read counts",
        )
    total = float(np.median(np.nansum(values, axis=1)))
    reason = f"whole numbers up to {top:,.0f}, {total:,.0f} per sample in the median"
    if total <= MAX_READS:
        return Unit("counts", reason=reason)
    small = present[(present > 0) & (present < 500)].astype(int)
    mode = int(np.bincount(small).argmax()) if small.size else 0
    hint = f"; the most frequent value is {mode}, a read length?" if 20 <= mode <= 400 else ""
    return Unit(
        "counts",
        reason=f"{reason}, more than the reads of one library{hint}",
        question=(
            "whether they are base-pair coverage sums (recount2) or several runs added up: TPM are the same, since a "
            "factor per sample cancels; read counts need the read length"
        ),
    )


def _recognise_linear(values: NDArray[np.float64], genes: GeneFacts) -> Unit:
    exact = _exact(values, genes)
    if exact is not None:
        return exact
    totals = np.nansum(values, axis=1)
    sums = f"samples sum to {totals.min():,.0f} to {totals.max():,.0f}"
    slope = length_slope(values, genes)
    if totals.max() > MAX_TPM_SUM:
        if slope > 0.5:
            return Unit(
                "scaled_counts", reason=f"{sums}, not whole, and they grow with gene length (power {slope:.1f})"
            )
        return Unit(
            "fpkm",
            reason=f"{sums}: TPM cannot pass a million, and their sums agree",
            question="whether these are FPKM/RPKM: normalised counts of a 3' protocol look the same",
        )
    return Unit(
        "tpm_or_fpkm",
        reason=f"not whole, {sums}: below a million and not the same, as FPKM are, or TPM of more genes than are here",
        question="whether they are TPM or FPKM, and of which genes; treating them as FPKM is right for both",
    )


def _recognise_log(values: NDArray[np.float64], genes: GeneFacts) -> Unit:
    linear = {base: from_log(values, base=base) for base in BASES if _fits(values, base)}
    for base, candidate in linear.items():
        exact = _exact(candidate, genes)
        if exact is not None:
            return replace(exact, base=base, reason=f"without a logarithm to base {base}: {exact.reason}")
    low = float(np.nanmin(values))
    if low > 1:
        return Unit(
            "unknown",
            reason=f"logarithms that start at {low:.2f}, as variance-stabilised values (vst, rlog) and arrays do",
            question="for the read counts: such values cannot be turned into TPM",
        )
    for base, candidate in linear.items():
        if _corpus_ratio(candidate, genes) <= MAX_RATIO and np.median(np.nansum(candidate, axis=1)) <= MAX_SUM:
            return _plausible_log(base, linear, genes)
    return Unit(
        "scaled_counts",
        base="2",
        reason="logarithms whose sums are those of expression in no base, as log2 of normalised counts",
        question="which base it is (2 is the usual one), and for the read counts",
    )


def _plausible_log(base: Base, linear: dict[Base, NDArray[np.float64]], genes: GeneFacts) -> Unit:
    """Return the unit of logarithms whose base the size of the sums told, with the doubts that remain."""
    found = _recognise_linear(linear[base], genes)
    n_known = int(np.isfinite(genes.expected).sum())
    doubts = []
    if n_known < MIN_KNOWN:
        doubts.append(f"which base the logarithm has: {n_known:,} known genes are too few to tell")
    elif base == "e" and _corpus_ratio(linear["2"], genes) > 0.22 and _corpus_ratio(linear["e"], genes) > 1.2:
        doubts.append(
            "whether the logarithm is natural: log2 of values that sum to less than usual would look the same"
        )
    top = float(np.log1p(np.nanmax(linear[base])) / np.log(POWERS[base]))
    return replace(
        found,
        base=base,
        reason=f"logarithms up to {top:.1f}, and of all bases {base} gives sums as expression has them: {found.reason}",
        question="; ".join([*doubts, found.question]).rstrip("; "),
    )


def _recognise_signed(values: NDArray[np.float64], present: NDArray[np.float64], genes: GeneFacts) -> Unit:
    negative = present[present < 0]
    if bool((negative == MARKER).all()):
        found = recognise(np.where(values == MARKER, np.nan, values), genes)
        return replace(found, reason=f"{found.reason} (without the marker -10 of missing genes)")
    floor = float(present.min())
    at_floor = float(np.mean(np.isclose(present, floor, rtol=1e-5)))
    for base in BASES if at_floor > 0.002 else ():
        if not _fits(values, base):
            continue
        pseudocount = float(POWERS[base] ** floor)
        nearest = min(PSEUDOCOUNTS, key=lambda p: abs(np.log(p / pseudocount)))
        usual = abs(pseudocount / nearest - 1) < 2e-3
        linear = from_log(values, base=base, pseudocount=pseudocount)
        if usual or _same_sum(linear, genes) is not None:
            value = nearest if usual else pseudocount
            found = _recognise_linear(linear, genes)
            zeros = f"{at_floor:.0%} of the values are {floor:.4g}, the logarithm to base {base} of {value:.4g}"
            reason = f"{zeros}: {found.reason}"
            return replace(found, base=base, pseudocount=value, reason=reason)
    for base in BASES:
        # pseudocounts that differ between samples (voom, edgeR) leave the sums a million
        exact = _same_sum(from_log(values, base=base, pseudocount=0.0), genes) if _fits(values, base) else None
        if exact is not None:
            reason = f"without a logarithm to base {base}: {exact.reason}"
            return replace(exact, base=base, pseudocount=0.0, reason=reason)
    how = SCALINGS[recognise_scaling(values)]
    return Unit(
        "unknown",
        reason=f"{negative.size / present.size:.0%} of the values are negative, down to {floor:.3g}, {how}",
        question="for the read counts or TPM from before that step: it cannot be undone",
    )


def _exact(linear: NDArray[np.float64], genes: GeneFacts) -> Unit | None:
    """Return the unit where an exact property shows it: whole numbers, whole multiples, the same sum."""
    steps = smallest_steps(linear)
    if steps is not None and np.allclose(steps, 1, rtol=1e-3):
        return Unit("counts", reason="all values are whole numbers")
    same = _same_sum(linear, genes)
    if steps is not None:
        quantity: Quantity = "cpm" if same is not None and same.denominator is not None else "scaled_counts"
        sums = "sums differ" if same is None else same.reason.split(",")[0]
        reason = f"in every sample all values are whole multiples of the smallest, so counts times a factor; {sums}"
        return Unit(quantity, reason=reason)
    if same is not None:
        return same
    whole = whole_share(linear)
    if whole > 0.3:
        return Unit(
            "expected_counts", reason=f"{whole:.0%} of the values above 10 are whole numbers, as in RSEM or salmon"
        )
    return None


def _same_sum(linear: NDArray[np.float64], genes: GeneFacts) -> Unit | None:
    """Return the unit of values that have one sum in all samples."""
    everything = np.ones(linear.shape[1], dtype=bool)
    denominators: tuple[tuple[Literal["vocabulary", "all"], NDArray[np.bool_]], ...] = (
        ("vocabulary", genes.vocabulary),
        ("all", everything),
    )
    for denominator, subset in denominators:
        totals = np.nansum(linear[:, subset], axis=1)
        total = float(np.median(totals))
        million = abs(total / MILLION - 1) < 0.02
        if total == 0 or np.abs(totals / total - 1).max() > SAME_SUM or (len(totals) < 2 and not million):
            continue
        slope = length_slope(linear, genes)
        which = "the vocabulary" if denominator == "vocabulary" else "all genes"
        reason = (
            f"every sample sums to {total:,.0f} over {which}, and values grow with the power {slope:.1f} of gene length"
        )
        question = "whether they are TPM or CPM: only CPM grow with gene length" if 0.4 < slope < 0.75 else ""
        quantity: Quantity = "tpm" if slope <= 0.6 else "cpm" if million else "scaled_counts"
        return Unit(quantity, reason=reason, question=question, denominator=denominator if million else None)
    return None


def smallest_steps(linear: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return each sample's step where its values are whole multiples of one, as counts times a factor are.

    Parameters
    ----------
    linear
        Not negative, shape (N, G).

    Returns
    -------
    Steps of the first samples that have at least 30 values between 1.5 and 200 steps; ``None`` where fewer than nine
    in ten of them are multiples, or the step is that of values rounded to decimals.
    """
    steps = []
    n_tested = 0
    for row in linear[:30]:
        positive = row[row > 1e-9]
        if not positive.size:
            continue
        smallest = float(positive.min())
        multiples = positive[(positive > 1.5 * smallest) & (positive < 200 * smallest)] / smallest
        if multiples.size < 30:
            continue
        n_tested += 1
        # the smallest value stands for one read, in shallow tables of expressed genes for a few
        for reads in (1, 2, 3, 4, 5):
            if np.quantile(np.abs(multiples * reads - np.round(multiples * reads)), 0.9) < 0.02:
                steps.append(smallest / reads)
                break
    if not steps or len(steps) < 0.9 * n_tested:
        return None
    decimals = np.log10(steps)
    rounded = bool(np.allclose(decimals, np.round(decimals[0]), atol=1e-3)) and decimals[0] < -0.5
    return None if rounded else np.array(steps)


def whole_share(linear: NDArray[np.float64]) -> float:
    """Return the share of whole numbers among values between 10 and 1,000; 0 where there are fewer than 100."""
    middle = linear[(linear > 10) & (linear < 1000)]
    return float(np.mean(np.abs(middle - np.round(middle)) < 1e-3)) if middle.size >= 100 else 0.0


def length_slope(linear: NDArray[np.float64], genes: GeneFacts) -> float:
    """Return the power of gene length with which values exceed the corpus mean: near 1 for counts, near 0 for TPM.

    Parameters
    ----------
    linear
        Not negative, shape (N, G).
    genes
        What is known of the columns.

    Returns
    -------
    The slope of log(value / expected TPM) on log(length) over well-expressed genes; 0 where fewer than 100 are known.
    """
    known = (genes.expected > 5) & (genes.lengths > 0) & ~np.isnan(linear).all(axis=0)
    typical = np.nanmedian(linear[:, known], axis=0)
    positive = typical > 0
    if positive.sum() < 100:
        return 0.0
    excess = np.log(typical[positive]) - np.log(genes.expected[known][positive])
    return float(np.polyfit(np.log(genes.lengths[known][positive]), excess, 1)[0])


def _corpus_ratio(linear: NDArray[np.float64], genes: GeneFacts) -> float:
    """Return the samples' median sum over what the corpus mean expects of the same genes."""
    known = np.isfinite(genes.expected)
    if known.sum() < MIN_KNOWN:
        return float(np.median(np.nansum(linear, axis=1))) / MILLION
    return float(np.median(np.nansum(linear[:, known], axis=1)) / genes.expected[known].sum())


def _fits(values: NDArray[np.float64], base: Base) -> bool:
    """Return whether the largest value stays below the largest base-pair coverage sum in this base."""
    return bool(np.nanmax(values) <= MAX_LOG * np.log(2) / np.log(POWERS[base]))
