"""Explorer of the tables: the paper's and one's own, a metric, a group of subsets, an order."""

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spdlib import comparison, paper
from spdlib.notebooks.explorers.explorer import explorer, menu
from spdlib.notebooks.figures import paper as plots
from spdlib.notebooks.figures import style

Pairs = list[tuple[str, str]]
PAIRS = [("simsiam", "simsiam_spd"), ("supervised", "supervised_spd")]
ALL = "all"
ORDERS = (
    "as printed", "by name", "by the first baseline", "by the first gain", "by the second gain",
)  # fmt: skip


def table_explorer(prepared: pd.DataFrame) -> widgets.VBox:
    """Any table, subset by subset; starts with the paper's Table 7.

    Args:
        prepared: One's own results as :func:`spdlib.comparison.prepare` returns them; their
            tables follow the paper's in the menu.
    """
    own = comparison.tables(prepared)
    first = paper.tidy().drop_duplicates("table").itertuples()
    texts = {row.table: f"{row.table}: {row.protocol} {row.task}" for row in first}
    texts |= {name: f"yours: {name}" for name in own}
    controls = {
        "table": menu(texts, texts.__getitem__),
        "metric": menu(paper.METRICS),
        "group": menu([ALL, *paper.GROUPS], description="subsets"),
        "sort": menu(ORDERS, description="order"),
    }
    return explorer(controls, lambda **chosen: draw_table(**chosen, own=own), height=620)


def draw_table(
    table: int | str, metric: str, group: str, sort: str, own: dict[str, pd.DataFrame]
) -> Figure:
    """The explorer's figure.

    Args:
        table: Number of the paper's table, or a key of ``own``.
        metric: ``"AU-PR"`` or ``"AU-ROC"``.
        group: One of the paper's three groups of subsets, or ``"all"``.
        sort: One of ``ORDERS``.
        own: Tables of one's own results.
    """
    if table in own:
        rows, pairs = _own_rows(own[str(table)])
    else:
        rows, pairs = paper.tidy(int(table), means=True).rename(columns={"subset": "row"}), PAIRS
    rows = rows[(rows.metric == metric) & ((rows.group == group) | (group == ALL))]
    if rows.empty:
        return style.nothing(f"no {metric} of {group} in this table")
    return plots.dumbbells(_sorted(rows, pairs, sort), pairs, f"{metric}, % (?: suspect)")


def _own_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, Pairs]:
    """Means of one's own repetitions, and which methods to join by a line."""
    means = comparison.summary(rows)
    groups = paper.tidy(7).drop_duplicates("visa_category").set_index("visa_category").group
    setting = means.setting.map(lambda setting: f"\n{setting}" if setting else "")
    row = means.dataset + " " + means.category + setting
    means = means.assign(row=row, mark="", group=means.category.map(groups))
    found = comparison.gains(rows)[["baseline", "method"]].drop_duplicates()
    return means, list(found.itertuples(index=False, name=None))


def _sorted(rows: pd.DataFrame, pairs: Pairs, order: str) -> pd.DataFrame:
    """Rows in the order asked for; the mean stays at the end."""
    wide = rows.pivot_table(index="row", columns="method", values="value")  # sorted by name
    first, second = (wide.reindex(columns=pair) for pair in [*pairs, *pairs, ("", " ")][:2])
    keys = {
        "as printed": pd.Series(0.0, wide.index),
        "by name": pd.Series(range(len(wide)), wide.index, float),
        "by the first baseline": -first.iloc[:, 0],
        "by the first gain": first.iloc[:, 0] - first.iloc[:, 1],
        "by the second gain": second.iloc[:, 0] - second.iloc[:, 1],
    }[order].fillna(np.inf)
    keys[keys.index == "Mean"] = np.inf
    return rows.sort_values("row", key=lambda row: row.map(keys), kind="stable")
