"""One's own results in the layout of the paper's tables, and what may be compared with them.

Values are percentages, as in the paper. The unit of repetition is the run (its seed) or, in
few-shot protocols, the draw: intervals are over those, and gains are differences within them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from spdlib import intervals, paths

CELL = ["dataset", "category", "protocol", "task", "downstream_model", "encoder", "setting"]
REPEAT = ["seed", "draw"]

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
        rows: As :func:`spdlib.results.read` returns them.
    """
    found = rows.reindex(columns=[*CELL, *REPEAT, "method", "metric", "value", "low", "high"])
    found[["value", "low", "high"]] = 100 * found[["value", "low", "high"]].astype(float)
    found = found.fillna({"setting": "", "draw": -1})
    keys = [*CELL, *REPEAT, "method", "metric"]
    means = found.groupby(keys, sort=False, dropna=False)
    return means.agg(
        value=("value", "mean"), low=("low", "mean"), high=("high", "mean"), files=("value", "size")
    ).reset_index()


def with_means(prepared: pd.DataFrame) -> pd.DataFrame:
    """The results and, where a data set has several categories, their mean as a category
    ``"Mean"``: of each repetition, so that its interval is over repetitions, too."""
    keys = [key for key in [*CELL, *REPEAT, "method", "metric"] if key != "category"]
    means = prepared.groupby(keys, sort=False, dropna=False).agg(
        value=("value", "mean"), files=("files", "max"), categories=("category", "nunique")
    )
    means = means.reset_index().assign(category="Mean")
    several = means[means.categories > 1].drop(columns="categories")
    return pd.concat([prepared, several], ignore_index=True) if len(several) else prepared


def summary(prepared: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval of each cell of the tables.

    Args:
        prepared: As :func:`prepare` returns it.

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
    """What + SPD adds to its baseline, paired by seed and draw.

    Returns:
        Columns ``dataset`` ... ``setting``, ``metric``, ``baseline``, ``method``, ``gain`` in
        percentage points, ``n`` (pairs), ``low``, ``high`` (Student's 95 %, from two pairs on),
        and ``up``, ``down`` (pairs with a gain above and below 0).
    """
    keys = [*CELL, *REPEAT, "metric"]
    parts = []
    for method in sorted(m for m in prepared.method.unique() if m.endswith("_spd")):
        baseline = _baseline(method, prepared)
        if baseline is None:
            continue
        one, two = (prepared[prepared.method == m][[*keys, "value"]] for m in (baseline, method))
        pairs = one.merge(two, on=keys, suffixes=("_without", "_with"))
        pairs["gain"] = pairs.value_with - pairs.value_without
        parts.append(pairs.assign(baseline=baseline, method=method))
    columns = [*CELL, "metric", "baseline", "method", "gain", "n", "up", "down", "low", "high"]
    if not parts:
        return pd.DataFrame(columns=columns)
    pairs = pd.concat(parts, ignore_index=True)
    pairs = pairs.assign(up=pairs.gain > 0, down=pairs.gain < 0)
    by = [*CELL, "metric", "baseline", "method"]
    found = intervals.of_means(pairs, by, "gain").rename(columns={"mean": "gain"})
    signs = pairs.groupby(by, sort=False, dropna=False)[["up", "down"]].sum().reset_index()
    return found.assign(up=signs.up, down=signs.down)[columns]


def sentences(gains: pd.DataFrame, metric: str = "AU-PR") -> list[str]:
    """What each gain says, in a line: its 95 % interval, and whether that excludes zero.

    Args:
        gains: As :func:`gains` returns them.
        metric: Which of them.
    """
    lines = []
    for row in gains[gains.metric == metric].itertuples():
        verdict = "the sign is open"
        if row.n < 2:
            verdict = "one pair tells no sign"
        elif row.low > 0 or row.high < 0:
            verdict = "beyond chance"
        interval = f" ({row.low:+.1f} to {row.high:+.1f}, {row.n} pairs)" if row.n > 1 else ""
        where = " ".join(filter(None, (row.dataset, row.category, row.protocol, row.task)))
        where += f", {row.setting}" if row.setting else ""
        what = f"{row.method} minus {row.baseline} {row.gain:+.1f}{interval}"
        lines.append(f"{where}: {what}: {verdict}")
    return lines


def comparable(
    prepared: pd.DataFrame,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    dataset: str | Path | None = None,
) -> pd.DataFrame:
    """For each data set, network and method: what differs from the paper's tables.

    Args:
        prepared: As :func:`prepare` returns it.
        about: Provenance of encoders by method; by default as the weight files tell.
        dataset: Whose weight files; by default ELPV's.

    Returns:
        Columns ``data set``, ``network``, ``method``, ``pretraining data``, ``differs in`` and
        ``to be compared with the paper``.
    """
    about = provenance(prepared.method.unique(), dataset) if about is None else about
    rows = []
    combinations = prepared[["dataset", "encoder", "method"]].drop_duplicates()
    for dataset, network, method in combinations.itertuples(index=False):
        data, same_data = pretraining_data(method, about.get(method))
        same = {
            "data set": dataset == PAPER["dataset"],
            "network": network == PAPER["encoder"],
            "pretraining data": same_data,
            "method": method.removesuffix("_spd") in ("simsiam", "supervised", "imagenet"),
        }
        differs = [name for name, is_same in same.items() if not is_same]
        rows.append(
            {
                "data set": dataset, "network": network, "method": method,
                "pretraining data": data, "differs in": ", ".join(differs) or "nothing",
                "to be compared with the paper": _verdict(differs),
            }
        )  # fmt: skip
    columns = ["data set", "network", "method", "pretraining data", "differs in"]
    return pd.DataFrame(rows, columns=[*columns, "to be compared with the paper"])


def provenance(
    methods: Iterable[str], dataset: str | Path | None = None
) -> dict[str, dict[str, Any]]:
    """What a data set's weight files say about how they were made, by method."""
    from spdlib.encoders import read_provenance  # here: the tables alone need no torch

    files = {method: paths.encoders(dataset) / f"{method}.safetensors" for method in methods}
    return {method: read_provenance(file) for method, file in files.items() if file.is_file()}


def pretraining_data(method: str, about: Mapping[str, Any] | None) -> tuple[str, bool]:
    """What an encoder was pretrained on, in words, and whether it is what the paper's was.

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


def _baseline(method: str, prepared: pd.DataFrame) -> str | None:
    measured = set(prepared.method)
    names = BASELINES.get(method, (method.removesuffix("_spd"),))
    return next((name for name in names if name in measured), None)


def _verdict(differs: list[str]) -> str:
    if not differs:
        return "values and gains"
    if differs == ["pretraining data"]:
        return "gains; values with care"
    return "signs of gains only" if "method" not in differs else "nothing directly"
