"""Exact AU-ROC, AU-PR, AU-PRO and max F1, at any number of samples or pixels.

All depend on the negatives only through two counts at each distinct score of a positive: how
many negatives lie above it, and how many at or above it. One pass over the negatives, in sorted
chunks against the sorted positives, gives both. The extra memory is set by the positives and the
chunk, ties are exact, and scores are used as they are: no binning, no sigmoid.

Two areas go by the name of AU-PR. :func:`aupr` joins the points of the curve by straight lines,
as Zou et al. and their metrics script do; :func:`average_precision` sums steps. The first
flatters a detector with few distinct scores: constant scores at a prevalence of 5 % give 0.525
and 0.05.

Maps on disk are measured by ``python -m spdlib.metrics MAPS MASKS``, see
:mod:`spdlib.metrics.maps`.
"""

from spdlib.metrics.counts import MaxF1
from spdlib.metrics.curves import Curve, pr_curve, roc_curve
from spdlib.metrics.measures import (
    Confusion,
    Metrics,
    aupr,
    aupro,
    auroc,
    average_precision,
    confusion,
    evaluate,
    max_f1,
    pixel_metrics,
)
from spdlib.metrics.resampling import bootstrap, bootstrap_difference, weighted
