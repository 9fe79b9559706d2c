"""What the curves and scores of error bars mean, beside them on the page."""

from __future__ import annotations

from surefoot.report.page import folded, paragraph, table

NOTES = {
    "calibration": "Coverage: on the diagonal as many labels lie inside an interval as it says; "
    "below it error bars are too small. Dashed: before recalibration.",
    "reliability": "Error against σ: root mean squares in bins of equal numbers of points, in "
    "order of σ; on the diagonal where error bars are true.",
    "sparsification": "Sparsification: RMSE of what is left when the points of largest σ are taken "
    "away, over the RMSE of all. Dashed: the best possible order.",
    "pit": "PIT: where labels fall in their predicted distributions; level where error bars are "
    "true, a U where they are too small. Dashed: 95 % band.",
}
"""Curve → how it is read."""

SCORES = {
    "nll": ("mean negative log-likelihood of the labels, in nats", "lower is better"),
    "crps": ("accuracy and width in one number, in the unit of the errors", "lower is better"),
    "crps_reference": ("crps with one σ for all points, their RMSE", "above crps"),
    "coverage_50": ("share of labels inside the central 50 % interval", "0.50"),
    "coverage_68": ("the same of the 68 % interval", "0.68"),
    "coverage_90": ("the same of the 90 % interval", "0.90"),
    "coverage_95": ("the same of the 95 % interval", "0.95"),
    "calibration_error": ("mean squared gap of coverage over all levels", "near 0; worst ⅓"),
    "miscalibration_area": ("area between the coverage and its diagonal", "near 0; worst ½"),
    "ence": ("gap between σ and RMSE, bin by bin", "as large as ence reference"),
    "ence_reference": ("ence of errors drawn from these very σ", "encloses ence"),
    "pit_ks": ("largest gap of the PIT values from level", "near 0"),
    "mean_square": ("mean of (error / σ)²", "1"),
    "spearman": ("whether larger σ go with larger errors", "above 0; true σ do not reach 1"),
    "ause": ("how far the order of σ is from that of the errors", "below 1, which is chance"),
    "sharpness": ("root mean square σ", "near the RMSE, and small"),
}
"""Score → what it says, and what to look for."""


def explain() -> list[str]:
    """Sentences about the curves, and a table of the scores that opens by a click."""
    rows = [
        {"score": name.replace("_", " "), "look for": aim, "what it says": meaning}
        for name, (meaning, aim) in SCORES.items()
    ]
    return [
        *map(paragraph, NOTES.values()),
        folded("What the scores mean", [table(rows, text=True)]),
    ]
