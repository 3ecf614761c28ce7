"""One's own results in the layout of the paper's tables, and what may be compared with them.

Values are percentages, as in the paper. The unit of repetition is the run (its seed) or, in
few-shot protocols, the draw: intervals are over those, and gains are differences within them.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from spdlib import intervals, paths, results
from spdlib.methods import baseline_of

CELL = [*results.CELL, "setting"]
REPEAT = ["seed", "draw"]
KEYS = [*CELL, *REPEAT, "method", "metric"]

# What a method with SPD is compared with: the first of these that was measured.
BASELINES = {"supervised_spd": ("supervised", "imagenet")}
# Where the paper's tables come from (section 5 and appendix D).
PAPER = {"dataset": "visa", "encoder": "resnet50", "pretraining": "ImageNet"}
IMAGENET_IMAGES = 1_281_167


def prepare(rows: pd.DataFrame) -> pd.DataFrame:
    """Results in percent, one value for each repetition.

    A value that several files hold, because it was measured again, enters once, as their mean;
    ``files`` says how many there were.

    Args:
        rows: Results, as :func:`spdlib.results.read` returns them.
    """
    found = rows.reindex(columns=[*KEYS, "value", "low", "high"])
    found[["value", "low", "high"]] = 100 * found[["value", "low", "high"]].astype(float)
    groups = found.fillna({"setting": "", "draw": -1}).groupby(KEYS, sort=False, dropna=False)
    means = groups[["value", "low", "high"]].mean()
    return means.assign(files=groups.value.size()).reset_index()


def with_means(prepared: pd.DataFrame) -> pd.DataFrame:
    """The results and, where a data set has several categories, their mean as a category
    ``"Mean"``: of each repetition, so that its interval is over repetitions, too."""
    keys = [key for key in KEYS if key != "category"]
    means = prepared.groupby(keys, sort=False, dropna=False).agg(
        value=("value", "mean"), files=("files", "max"), categories=("category", "nunique")
    )
    means = means[means.categories > 1].drop(columns="categories").reset_index()
    parts = [prepared, means.assign(category="Mean")] if len(means) else [prepared]
    return pd.concat(parts, ignore_index=True)


def summary(prepared: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval of each cell of the tables.

    Args:
        prepared: Results, as :func:`prepare` returns them.

    Returns:
        Columns ``dataset`` ... ``setting``, ``method``, ``metric``, ``value``, ``std``, ``n``
        (repetitions), ``low``, ``high`` and ``text``. With two repetitions or more the interval
        is Student's, over them; with one it is the bootstrap's over images, if the run made one.
    """
    keys = [*CELL, "method", "metric"]
    found = intervals.of_means(prepared, keys).rename(columns={"mean": "value"})
    own = prepared.groupby(keys, sort=False, dropna=False)[["low", "high"]].mean().reset_index()
    half = found.high - found.value
    found = found.fillna({"low": own.low, "high": own.high})
    text = found.value.map("{:.1f}".format)
    return found.assign(text=text + half.map(lambda h: "" if pd.isna(h) else f" ± {h:.1f}"))


def gains(prepared: pd.DataFrame) -> pd.DataFrame:
    """Gains of + SPD over its baseline, paired by seed and draw.

    Returns:
        Columns ``dataset`` ... ``setting``, ``metric``, ``baseline``, ``method``, ``gain`` in
        percentage points, ``n`` (pairs), ``low``, ``high`` and ``p``: Student's, from two pairs on.
    """
    keys = [*CELL, *REPEAT, "metric"]
    measured = set(prepared.method)
    ours = prepared.assign(baseline=[_baseline(method, measured) for method in prepared.method])
    ours = ours.astype({"baseline": prepared.method.dtype})  # also where there are none
    theirs = prepared.rename(columns={"method": "baseline"})
    pairs = ours.merge(theirs, on=[*keys, "baseline"], suffixes=("", "_without"))
    pairs["gain"] = pairs.value - pairs.value_without
    by = [*CELL, "metric", "baseline", "method"]
    found = intervals.of_means(pairs, by, "gain").rename(columns={"mean": "gain"})
    error = found["std"] / found.n**0.5
    found["p"] = 2 * stats.t.sf((found.gain / error).abs().astype(float), found.n - 1)
    return found[[*by, "gain", "n", "low", "high", "p"]]


def sentences(gains: pd.DataFrame, metric: str = "AU-PR") -> list[str]:
    """A line a gain: its 95 % interval, and whether its sign is more than chance.

    Of many intervals some leave zero out by chance alone, so this is judged by p values that are
    corrected for the number of gains (Holm, 1979).

    Args:
        gains: Table of :func:`gains`.
        metric: Metric whose gains are told.
    """
    rows = gains[gains.metric == metric]
    several = rows.n > 1
    adjusted = pd.Series(1.0, rows.index)
    adjusted[several] = intervals.holm(rows.p[several])
    lines = []
    for row, p in zip(rows.itertuples(), adjusted, strict=True):
        verdict = "beyond chance" if p < 1 - intervals.LEVEL else "the sign is open"
        verdict = verdict if row.n > 1 else "one pair tells no sign"
        interval = f" ({row.low:+.1f} to {row.high:+.1f}, {row.n} pairs)" if row.n > 1 else ""
        where = " ".join(filter(None, (row.dataset, row.category, row.protocol, row.task)))
        where += f", {row.setting}" if row.setting else ""
        gain = f"{row.method} minus {row.baseline} {row.gain:+.1f}{interval}"
        lines.append(f"{where}: {gain}: {verdict}")
    return lines


def comparable(
    prepared: pd.DataFrame,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    dataset: str | Path | None = None,
) -> pd.DataFrame:
    """Differences from the paper's tables, by data set, network and method.

    Args:
        prepared: Results, as :func:`prepare` returns them.
        about: Provenance of encoders by method; by default as the weight files tell.
        dataset: Data set whose weight files are read; by default ELPV.

    Returns:
        Columns ``data set``, ``network``, ``method``, ``pretraining data``, ``differs in`` and
        ``to be compared with the paper``.
    """
    about = provenance(prepared.method.unique(), dataset) if about is None else about
    rows = []
    combinations = prepared[["dataset", "encoder", "method"]].drop_duplicates()
    for data_set, network, method in combinations.itertuples(index=False):
        data, same_data = pretraining_data(method, about.get(method))
        same = {
            "data set": data_set == PAPER["dataset"],
            "network": network == PAPER["encoder"],
            "pretraining data": same_data,
            "method": method.removesuffix("_spd") in ("simsiam", "supervised", "imagenet"),
        }
        differs = [name for name, is_same in same.items() if not is_same]
        words = ", ".join(differs) or "nothing"
        rows.append((data_set, network, method, data, words, _verdict(differs)))
    columns = ["data set", "network", "method", "pretraining data", "differs in"]
    return pd.DataFrame(rows, columns=[*columns, "to be compared with the paper"])


def provenance(
    methods: Iterable[str], dataset: str | Path | None = None
) -> dict[str, dict[str, Any]]:
    """Provenance of a data set's weight files, by method."""
    from spdlib.encoders import read_provenance  # here: the tables alone need no torch

    files = {method: paths.encoders(dataset) / f"{method}.safetensors" for method in methods}
    return {method: read_provenance(file) for method, file in files.items() if file.is_file()}


def pretraining_data(method: str, about: Mapping[str, Any] | None) -> tuple[str, bool]:
    """Pretraining data of an encoder, in words, and whether they are the paper's.

    >>> pretraining_data("simsiam", {"dataset": "elpv", "images": 1485, "weights": "imagenet"})
    ('elpv (1,485 images), from ImageNet weights', False)
    """
    if method == "imagenet":
        return "ImageNet, with labels", True
    if method == "random":
        return "none", False
    if about is None:
        return "unknown: its weight file is not among the encoders", False
    images = int(about.get("images", 0))
    started = about.get("started_from", about.get("weights"))
    started = started.get("weights") if isinstance(started, Mapping) else started
    words = f"{about.get('dataset', 'unknown')} ({images:,} images)"
    if started == "imagenet":
        words += ", from ImageNet weights"
    return words, images == IMAGENET_IMAGES and started != "imagenet"


def tables(prepared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The results as tables, one for each protocol, task and network, by a name to show."""
    keys = ["protocol", "task", "downstream_model", "encoder"]
    return {
        f"{protocol} {task}, {model} on {encoder}": rows
        for (protocol, task, model, encoder), rows in prepared.groupby(keys, sort=False)
    }


def _baseline(method: str, measured: Collection[str]) -> str | None:
    names = BASELINES.get(method, (baseline_of(method),))
    return next((name for name in names if name in measured), None)


def _verdict(differs: list[str]) -> str:
    if not differs:
        return "values and gains"
    if differs == ["pretraining data"]:
        return "gains; values with care"
    return "signs of gains only" if "method" not in differs else "nothing directly"
