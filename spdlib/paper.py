"""Tables 7 to 14 of Zou et al. (ECCV 2022, appendix D): VisA, object by object.

They come from a scan. Each value therefore has a status: ``as scanned``; ``decimal point
restored`` (985 is 98.5); ``digit inferred from the column mean`` (one digit was lost, and only
one fits the printed mean); ``suspect: column mean off`` (the column's values do not average to
its printed mean, and nobody can tell which of them is wrong). Suspect values stay as they are;
every table and figure marks them with ``?``, and inferred digits with ``*``.

All values are percentages. AU-PR is the area by linear interpolation, see
:func:`spdlib.metrics.aupr`.
"""

import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from spdlib import paths

FILE = "tables_7_to_14.csv"
TABLES = tuple(range(7, 15))
PRETRAININGS = ("SimSiam", "SimSiam+SPD", "Supervised", "Supervised+SPD")
METRICS = ("AU-PR", "AU-ROC")
GROUPS = ("Complex structure", "Multiple instances", "Single instance")
# By the beginning of a status. A result has the highest mark of what went into it: "" < "*" < "?".
MARKS = {"digit inferred": "*", "suspect": "?"}


def tidy(number: int | None = None, means: bool = False) -> pd.DataFrame:
    """The values of one table, or of all, one a row.

    Args:
        number: 7 to 14; by default all tables.
        means: Whether to add the printed column means, as rows whose ``subset`` is ``"Mean"``.

    Returns:
        Columns ``table``, ``protocol``, ``task``, ``downstream_model``, ``group``, ``subset``,
        ``visa_category`` (as the data set spells it), ``pretraining``, ``method`` (as this
        library spells it), ``metric``, ``value`` in percent, ``status``, ``suspect``, ``mark``
        (``"?"`` suspect, ``"*"`` inferred, else empty), ``text`` (value and mark) and
        ``scanned`` (what the scan reads).

    Raises:
        ValueError: There is no such table.

    >>> tidy(7).query("subset == 'PCB1' and metric == 'AU-PR'").value.tolist()
    [83.5, 83.5, 89.5, 90.4]
    """
    rows = _read()
    if number is not None:
        if number not in TABLES:
            raise ValueError(f"number: there are tables {TABLES[0]} to {TABLES[-1]}, not {number}")
        rows = rows[rows.table == number]
    return rows[means | (rows.subset != "Mean")].reset_index(drop=True)


def table(number: int, show: str = "value") -> pd.DataFrame:
    """A table in the paper's layout: subsets by group down, pretrainings and metrics across.

    Args:
        number: 7 to 14.
        show: Content of its cells: ``"value"`` (numbers, to compute with), ``"text"`` (with
            marks, to read), ``"status"``, ``"suspect"`` or ``"scanned"``.

    Returns:
        13 rows (12 subsets and the printed means), 8 columns.

    >>> table(8, "text").loc[("Single instance", "Cashew"), ("SimSiam", "AU-PR")]
    '9.9 ?'
    >>> table(7).loc[("Mean", "Mean"), "Supervised+SPD"].tolist()
    [88.6, 87.8]
    """
    return layout(tidy(number, means=True), show=show)


def layout(
    rows: pd.DataFrame,
    index: Sequence[str] = ("group", "subset"),
    columns: Sequence[str] = ("pretraining", "metric"),
    show: str = "value",
) -> pd.DataFrame:
    """Tidy rows in the layout of the paper's tables, in the order in which they come.

    Args:
        rows: One value a row; ``index`` and ``columns`` together identify it.
        index: Columns of ``rows`` that go down.
        columns: Columns of ``rows`` that go across.
        show: The column of ``rows`` that stands in the cells.
    """
    index, columns = list(index), list(columns)
    wide = rows.pivot(index=index, columns=columns, values=show)
    order = [rows.set_index(names).index.unique() for names in (index, columns)]
    return wide.reindex(index=order[0], columns=order[1])


def column_means() -> pd.DataFrame:
    """Every column's printed mean beside the mean of its twelve values.

    Returns:
        Columns ``table``, ``pretraining``, ``metric``, ``printed``, ``computed``,
        ``difference``, ``bound`` (what rounding can explain: half a digit of the twelve values
        and half a digit of the mean), ``inferred`` (how many of its digits were inferred from
        the printed mean, so that agreement proves nothing) and ``suspect``.
    """
    key = ["table", "pretraining", "metric"]
    rows = _read()
    columns = rows.groupby(key, sort=False)
    printed = rows.subset.eq("Mean").map({True: "printed", False: "computed"})
    found = rows.pivot_table("value", key, printed, sort=False)[["printed", "computed"]]
    found["difference"] = found.computed - found.printed
    decimals = found.printed.map(lambda value: len(f"{value}".partition(".")[2]))
    found["bound"] = 0.05 + 0.5 * 10.0**-decimals
    found["inferred"] = columns.status.agg(lambda status: status.str.startswith("digit").sum())
    found["suspect"] = columns.suspect.any()
    return found.reset_index()


def gains(number: int | None = None) -> pd.DataFrame:
    """Gains of + SPD over its baseline, subset by subset.

    Returns:
        Columns ``table``, ``protocol``, ``task``, ``group``, ``subset``, ``metric``,
        ``baseline`` (``"SimSiam"`` or ``"Supervised"``), ``without``, ``with_spd``, ``gain``
        in percentage points, ``suspect`` (one of the two values is), ``mark`` and ``text``.

    >>> gains(7).query("subset == 'PCB1' and baseline == 'Supervised'").gain.round(1).tolist()
    [0.9, 0.7]
    """
    key = ["table", "protocol", "task", "group", "subset", "metric", "baseline"]
    rows = tidy(number)
    rows["baseline"] = rows.pretraining.str.removesuffix("+SPD")
    spd = rows.pretraining.str.endswith("+SPD")
    pairs = rows[~spd].merge(rows[spd], on=key, suffixes=("", "_spd"), validate="one_to_one")
    # Both numbers have one decimal; so has their difference, but not in binary.
    gain = (pairs.value_spd - pairs.value).round(2)
    found = pairs[key].assign(
        without=pairs.value, with_spd=pairs.value_spd, gain=gain,
        mark=np.maximum(pairs.mark.astype(object), pairs.mark_spd.astype(object)),
    )  # fmt: skip
    return _with_text(found, "gain", "{:+.1f}")


def sign_counts(gains: pd.DataFrame) -> pd.DataFrame:
    """Numbers of positive, negative and nil gains, and their mean.

    Args:
        gains: Table of :func:`gains`.

    Returns:
        Columns ``table``, ``protocol``, ``task``, ``baseline``, ``metric``, then ``up``, ``down``,
        ``level``, ``suspect`` (how many of these rest on a suspect value) and ``mean`` in
        percentage points.

    >>> counts = sign_counts(gains(7))
    >>> counts[["baseline", "metric", "up", "down", "level"]].values.tolist()[0]
    ['SimSiam', 'AU-PR', 10, 1, 1]
    """
    signed = gains.assign(up=gains.gain > 0, down=gains.gain < 0, level=gains.gain == 0)
    counts = signed.groupby(["table", "protocol", "task", "baseline", "metric"], sort=False)
    found = counts[["up", "down", "level", "suspect"]].sum()
    return found.assign(mean=counts.gain.mean()).reset_index()


def disagreements(number: int | None = None) -> pd.DataFrame:
    """Each two pretrainings on each subset: do AU-PR and AU-ROC prefer the same one?

    Returns:
        Columns ``table``, ``protocol``, ``task``, ``group``, ``subset``, ``first``, ``second``
        (pretrainings), ``aupr`` and ``auroc`` (second minus first, percentage points),
        ``verdict`` (``"agree"``, ``"disagree"``, or ``"tie"`` where either metric is level)
        and ``suspect`` (one of the four values is).
    """
    key = ["table", "protocol", "task", "group", "subset"]
    rows = tidy(number)
    wide = rows.pivot(index=[*key, "pretraining"], columns="metric", values="value")
    wide["suspect"] = rows.groupby([*key, "pretraining"]).suspect.any()
    wide = wide.reset_index()
    pairs = wide.merge(wide, on=key, suffixes=("_1", "_2"))
    rank = {name: place for place, name in enumerate(PRETRAININGS)}
    pairs = pairs[pairs.pretraining_1.map(rank) < pairs.pretraining_2.map(rank)]
    aupr = (pairs["AU-PR_2"] - pairs["AU-PR_1"]).round(2)
    auroc = (pairs["AU-ROC_2"] - pairs["AU-ROC_1"]).round(2)
    verdict = np.select([aupr * auroc > 0, aupr * auroc < 0], ["agree", "disagree"], "tie")
    return pairs[key].assign(
        first=pairs.pretraining_1, second=pairs.pretraining_2, aupr=aupr, auroc=auroc,
        verdict=verdict, suspect=pairs.suspect_1 | pairs.suspect_2,
    ).reset_index(drop=True)  # fmt: skip


@cache
def _read() -> pd.DataFrame:
    # In a checkout; with a plain installation beside the environment's other data.
    places = paths.root() / "data" / "paper", Path(sysconfig.get_path("data"), "share", "spdlib")
    path = next((folder / FILE for folder in places if (folder / FILE).is_file()), places[0] / FILE)
    rows = pd.read_csv(path, dtype={"scanned": str}, keep_default_na=False)
    rows["method"] = rows.pretraining.str.lower().str.replace("+", "_")
    rows["mark"] = ""
    for beginning, mark in MARKS.items():
        rows.loc[rows.status.str.startswith(beginning), "mark"] = mark
    return _with_text(rows)


def _with_text(rows: pd.DataFrame, column: str = "value", form: str = "{:.1f}") -> pd.DataFrame:
    text = rows[column].map(form.format) + rows.mark.map(lambda mark: f" {mark}" if mark else "")
    return rows.assign(suspect=rows.mark == MARKS["suspect"], text=text)
