"""The command line that measures anomaly maps on disk."""

import argparse
import itertools
import json
import sys

import pandas as pd

from spdlib import intervals, results
from spdlib.metrics import bootstrap, evaluate, maps
from spdlib.metrics.counting import count_pixels
from spdlib.metrics.counts import LIMIT, Counts
from spdlib.metrics.measures import METRICS, Metrics, check_limit, from_counts
from spdlib.metrics.resampling import at_thresholds, image_counts, thinned
from spdlib.paths import replacing
from spdlib.progress import track

IMAGES, PIXELS = "detection", "segmentation"


def main(arguments: list[str] | None = None) -> int:
    """Measures the maps and prints a table; returns the exit status."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    folders, file = (given.pop("maps"), given.pop("masks")), given.pop("json")
    try:
        rows = measure(maps.find(*folders), **given)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(results.table(rows, ["task", "category"]).to_string())
    best = rows[rows.metric == METRICS["max_f1"].title]
    print("\nThresholds of the max F1 (the test images have been seen: an oracle's):")
    print(best.pivot(index="category", columns="task", values="threshold").to_string())
    if file:
        means = rows.groupby(["task", "metric"], sort=False).value.mean().reset_index()
        about = given | dict(zip(("maps", "masks"), folders, strict=True))
        plain = rows.astype(object).where(rows.notna(), None).to_dict("records")
        with replacing(file) as temporary:
            content = {"about": about, "rows": plain, "means": means.to_dict("records")}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 0


def measure(
    pairs: pd.DataFrame,
    resize: bool = False,
    limit: float = LIMIT,
    repeats: int = 1000,
    seed: int = 0,
    thresholds: int = 0,
) -> pd.DataFrame:
    """All metrics of maps on disk, category by category, one map in memory at a time.

    Args:
        pairs: Files of maps and masks, as :func:`spdlib.metrics.maps.find` returns them.
        resize: Whether maps are brought to the size of their masks.
        limit: Largest false positive rate, as for :func:`spdlib.metrics.aupro`.
        repeats: Resamplings of images for the intervals; 0 for none.
        seed: Seed of the resampling.
        thresholds: Number of thresholds to count at, too; VisA's own script has 200.

    Returns:
        Columns ``category``, ``task``, ``metric``, ``value``, ``low``, ``high`` and, of the best
        F1, ``threshold``. A category without normal images has no rows of detection.

    Raises:
        ValueError: As for :func:`spdlib.metrics.maps.scan`.
    """
    check_limit(limit)
    parts, by_category = [], maps.scan(pairs, resize).groupby("category", sort=False)
    for category, rows in track(by_category, "measuring", "categories"):
        if not rows.label.all():
            spread = bootstrap(rows.label, rows.score, repeats, seed=seed) if repeats else None
            parts.append(_rows(evaluate(rows.label, rows.score), spread, category, IMAGES))
        counts = _count(rows)
        spread = None
        if repeats:
            images = image_counts(maps.read(rows), thinned(counts.thresholds[::-1]))
            drawn = images.weighted(intervals.draws(len(rows), repeats, seed), limit)
            spread = {name: intervals.percentile(values) for name, values in drawn.items()}
        parts.append(_rows(from_counts(counts, limit), spread, category, PIXELS))
        if thresholds:
            ends = rows.low.min(), rows.score.max()
            coarse = at_thresholds(maps.read(rows), counts, *ends, thresholds)
            task = f"{PIXELS}, {thresholds} thresholds"
            parts.append(_rows(from_counts(coarse, limit), None, category, task))
    return pd.concat(parts, ignore_index=True)


def _count(rows: pd.DataFrame) -> Counts:
    ours, theirs = itertools.tee(maps.read(rows))  # gone through side by side: one pair waits
    return count_pixels((values for values, _ in ours), (truth for _, truth in theirs))


def _rows(found: Metrics, spread: dict | None, category: str, task: str) -> pd.DataFrame:
    rows = results.rows(found, spread, category=category, task=task)
    best = rows.metric == METRICS["max_f1"].title
    rows["threshold"] = best.map({True: found.threshold})
    return rows.astype({"low": float, "high": float})


def _parser() -> argparse.ArgumentParser:
    about = "Exact AU-ROC, AU-PR, AU-PRO and max F1 of anomaly maps, of any model."
    parser = argparse.ArgumentParser(prog="python -m spdlib.metrics", description=about)
    add = parser.add_argument
    add("maps", help="folder of maps: .tiff, .npy or .png, laid out as the masks are")
    add("masks", help="folder of masks, or the data set's: MVTec AD, VisA, masks/, or flat")
    add("--resize", action="store_true", help="bring maps to the size of their masks, bilinearly")
    add("--limit", type=float, default=LIMIT, help="false positive rate AU-PRO goes up to, 0.3")
    add("--repeats", type=int, default=1000, help="resamplings for the intervals; 0: none")
    add("--seed", type=int, default=0, help="seed of the resampling")
    add("--thresholds", type=int, default=0, metavar="N",
        help="also count at N thresholds only; 200 as VisA's script")  # fmt: skip
    add("--json", metavar="FILE", help="where to write the values, too")
    return parser
