"""Measured results: one value a row, in one shape whatever was measured.

Each run of a notebook writes ``runs/results/NAME.json`` (rows, and how they were made) and a
CSV copy of the rows; :func:`read` gathers the rows of all of them. The columns line up with
those of :func:`spdlib.paper.tidy`, so that the paper's tables and one's own stand side by side:

    dataset           elpv, elpv_painted, visa, mvtec ... or a folder's name
    category          the object, e.g. poly or pcb1
    protocol          1-class, 2-class high-shot, 2-class 5-shot ..., as in the paper
    task              detection (images) or segmentation (pixels)
    downstream_model  PaDiM, binary classifier or U-Net, as in the paper
    encoder           architecture, e.g. efficientnet_lite0
    method            pretraining: imagenet, simsiam, simsiam_spd, supervised_spd ...
    setting           sweep parameters unlike the notebook's defaults, e.g. size=96; or none
    seed              of the run
    draw              number of the few-shot draw; none elsewhere
    metric            AU-PR (linear), AU-ROC, AP (average precision, steps), max F1 or AU-PRO
    value             in [0, 1]
    low, high         ends of the 95 % bootstrap interval, if there is one
"""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from spdlib import paths
from spdlib.metrics.measures import METRICS, Metrics

FORMAT = "spdlib.results.v1"

CELL = ("dataset", "category", "protocol", "task", "downstream_model", "encoder")
COLUMNS = (*CELL, "method", "setting", "seed", "draw", "metric", "value", "low", "high")
OPTIONAL = ("setting", "draw", "low", "high")


def rows(
    metrics: Metrics, intervals: Mapping[str, tuple[float, float]] | None = None, **columns: Any
) -> pd.DataFrame:
    """Rows of one set of scores, one a metric; AU-PRO only where there are regions.

    Args:
        metrics: Values by metric, as :func:`spdlib.metrics.evaluate` or ``pixel_metrics`` gives.
        intervals: Ends by metric, as :func:`spdlib.metrics.bootstrap` gives them.
        **columns: Content of the other columns, e.g. ``category="poly"``.
    """
    found = []
    for name, metric in METRICS.items():
        if (value := getattr(metrics, name, None)) is not None:
            low, high = (intervals or {}).get(name, (None, None))
            row = {"metric": metric.title, "value": value, "low": low, "high": high}
            found.append(columns | row)
    return pd.DataFrame(found)


def table(rows: pd.DataFrame, index: Sequence[str]) -> pd.DataFrame:
    """Results to read: a column a metric, in percent, with its interval.

    Several categories are followed by their mean, which has no interval.

    Args:
        rows: One value a row, as :func:`rows` makes them.
        index: Columns that tell rows of the table apart, ``category`` among them.
    """
    parts = [rows.assign(text=[_text(row) for row in rows.itertuples()])]
    if rows.category.nunique() > 1:
        by = [*(name for name in index if name != "category"), "metric"]
        means = rows.groupby(by, sort=False).value.mean().reset_index()
        parts.append(means.assign(category="mean", text=(100 * means.value).map("{:.1f}".format)))
    both = pd.concat(parts).sort_values("task", kind="stable")
    wide = both.set_index([*index, "metric"]).text.unstack(fill_value="")
    order = both[[*index]].drop_duplicates().itertuples(index=False, name=None)
    return wide.loc[list(order), [m.title for m in METRICS.values() if m.title in wide]]


def _text(row: Any) -> str:
    interval = "" if pd.isna(row.low) else f"  [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return f"{100 * row.value:.1f}{interval}"


def save(
    name: str,
    table: pd.DataFrame,
    about: Mapping[str, Any] | None = None,
    dataset: str | Path | None = None,
) -> Path:
    """Writes ``NAME.json`` and ``NAME.csv`` among a data set's results; returns the former's path.

    Args:
        name: E.g. ``"03_padim_evaluation"``.
        table: One value a row, with the columns of ``COLUMNS`` (those in ``OPTIONAL`` may be
            absent) and any others.
        about: Origin of the values: parameters, provenance of encoders; JSON values.
        dataset: Data set that was measured; decides the folder, see :func:`spdlib.paths.results`.

    Raises:
        ValueError: A column is missing, or a value is not in [0, 1].
    """
    missing = [c for c in COLUMNS if c not in table.columns and c not in OPTIONAL]
    if missing:
        raise ValueError(f"table: it lacks {', '.join(missing)}")
    if not table.value.between(0, 1).all():
        raise ValueError("table: values are shares, in [0, 1]")
    table = table.reindex(columns=[*COLUMNS, *table.columns.difference([*COLUMNS], sort=False)])
    path = paths.results(dataset) / f"{name}.json"
    made_by = {"about": dict(about or {}), "versions": {n: version(n) for n in ("spdlib", "torch")}}
    plain = table.astype(object).where(table.notna(), None)  # to_json would round
    content = {"format": FORMAT, **made_by, "rows": plain.to_dict("records")}
    with paths.replacing(path) as temporary:
        text = json.dumps(content, indent=1, default=lambda number: number.item())  # NumPy's
        temporary.write_text(text, encoding="utf-8")
    write_csv(path.with_suffix(".csv"), table)
    return path


def write_csv(path: Path, rows: pd.DataFrame) -> None:
    """Writes a table, and what of its text is no UTF-8 as ``\\udcfc``."""
    with paths.replacing(path) as temporary:
        rows.to_csv(temporary, index=False, errors="backslashreplace")


def read(folder: str | Path | None = None) -> pd.DataFrame:
    """The rows of all results in a folder and below it, with a column ``run``, the file's name.

    Args:
        folder: Folder of results, by default ``runs/results``.

    Returns:
        The rows; none, with the columns of ``COLUMNS``, where there are no results yet.

    Raises:
        ValueError: A JSON file there is not a file of results; names it.
    """
    folder = Path(folder or paths.results())
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{paths.show(path)} is not JSON ({error})") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{paths.show(path)} was not written by spdlib.results.save")
        run = path.relative_to(folder).with_suffix("").as_posix()
        rows += [row | {"run": run} for row in content["rows"]]
    found = pd.DataFrame(rows, columns=None if rows else [*COLUMNS, "run"])
    numbers = ["draw", "value", "low", "high"]  # where all are None, pandas cannot know
    found[numbers] = found.reindex(columns=numbers).apply(pd.to_numeric)
    return found
