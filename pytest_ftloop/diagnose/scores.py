"""Metrics other than the loss: which way each improves, and whether it did.

A trainer logs whatever its user computes: word error rate, ROUGE, F1, IoU. Their direction is known
by name, or from the trainer's own choice of a best checkpoint.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Literal

Better = Literal["lower", "higher"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LOWER = _words(
    """
    wer cer mer wil ter der eer error errors mae mse rmse msle rmsle mape smape fid brier ece
    hamming distance bpc bpb
    """
)
"""Words in the name of a metric that improves downwards: error rates and distances."""

HIGHER = _words(
    """
    accuracy acc f1 fbeta precision recall sensitivity specificity rouge rouge1 rouge2 rougel
    rougelsum bleu sacrebleu bleu4 gleu chrf meteor comet bertscore exact em match iou miou
    jaccard dice map map50 map75 map5095 mar ap auc auroc roc auprc mcc matthews kappa pearson
    spearman spearmanr pearsonr r2 ndcg mrr hits psnr ssim pass passed win winrate success
    correct similarity top1 top5
    """
)
"""Words in the name of a metric that improves upwards: shares that are right, and overlaps."""

QUALIFIERS = _words(
    """
    mean overall avg average macro micro weighted samples binary token tokens word char ortho
    normalized normalised norm raw rate score all per 1 2 3 4 5 10 50 75 95 at k l sum lsum
    large small medium balanced corpus sentence ratio percent pct coefficient correlation
    """
)
"""Words that only say how a metric is averaged. A name with any other word is a part's, such as
one class's, and is not used beside an overall one."""

SHARE, RELATIVE = 0.005, 0.02
"""Smallest change of a metric that counts: half a point of a share, or in percent; 2% of a metric
without bounds."""


LARGEST_SHARE = 5.0
"""Largest value of a metric whose values are shares: a first word error rate can be 3."""

JITTER_POINTS = 5
"""Fewest points of a curve whose jitter is measured."""


@dataclass(frozen=True)
class Score:
    """One metric over the evaluation points, as (step, value), and the direction it improves in.

    `rows` is the number of evaluated rows, 0 if unknown.
    """

    name: str
    better: Better
    points: tuple[tuple[int, float], ...]
    rows: int = 0

    @property
    def best(self) -> tuple[int, float]:
        """The best point; of equal ones the first."""
        return min(self.points, key=lambda point: (self.sign * -point[1], point[0]))

    @property
    def last(self) -> tuple[int, float]:
        """The last point."""
        return self.points[-1]

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.better == "higher" else -1

    @property
    def unit(self) -> int:
        """1 if most values are shares (a WER may begin above 1); 100 for percent and larger."""
        values = [abs(value) for _, value in self.points]
        return 1 if median(values) <= 1 and max(values) <= LARGEST_SHARE else 100

    @property
    def limit(self) -> float:
        """Smallest change that counts: `SHARE` and so on, sampling error, or twice the jitter.

        The sampling error is that of a share over `rows`. The jitter is the standard deviation of a
        point about its neighbours, by the median of the second differences (of variance 6). It
        takes five points.
        """
        values = [value for _, value in self.points]
        top, unit = max(map(abs, values)), self.unit
        scale = SHARE * unit if unit == 1 or top <= unit else RELATIVE * top
        if self.rows and 0 <= min(values) <= top <= unit:
            share = median(values) / unit
            scale = max(scale, unit * math.sqrt(share * (1 - share) / self.rows))
        if len(values) < JITTER_POINTS:
            return scale
        jumps = [new - old for old, new in pairwise(values)]
        turns = [abs(new - old) for old, new in pairwise(jumps)]
        return max(scale, 2 * 1.4826 * median(turns) / math.sqrt(6))

    def gain(self, start: int, end: int) -> float:
        """How much better the value at step `end` is than at `start`; NaN if one is missing."""
        values = dict(self.points)
        return self.sign * (values.get(end, math.nan) - values.get(start, math.nan))

    def mean_gain(self, start: int) -> float:
        """How much better the mean after step `start` is than the value there; NaN if unknown."""
        values = [value for step, value in self.points if step > start]
        at_start = dict(self.points).get(start, math.nan)
        return self.sign * (fmean(values) - at_start) if values else math.nan

    def improved(self, start: int) -> bool:
        """Whether the end, and half as clearly the mean, is better than step `start`."""
        gain = self.gain(start, self.last[0])
        return gain > self.limit and self.mean_gain(start) > self.limit / 2

    def worsened(self, start: int) -> bool:
        """Whether the end, and half as clearly the mean, is worse than step `start`."""
        loss = -self.gain(start, self.last[0])
        return loss > self.limit and -self.mean_gain(start) > self.limit / 2

    def text(self, value: float) -> str:
        """A value for a message."""
        return f"{value:.4g}"


def direction(name: str) -> Better | None:
    """The direction that a metric's name tells (`wer_ortho`: lower); None if it tells none."""
    words = words_of(name)
    lower, higher = LOWER & words, HIGHER & words
    if lower or name.lower() == "per":  # the phoneme error rate; elsewhere "per" is a preposition
        return "lower"
    return "higher" if higher else None


def is_overall(name: str) -> bool:
    """Whether a name has no word that could be a class or a part of the set."""
    return words_of(name) <= LOWER | HIGHER | QUALIFIERS


def words_of(name: str) -> set[str]:
    """The words of a metric's name, in lower case."""
    return {word for word in re.split(r"[^a-z0-9]+", name.lower()) if word}
