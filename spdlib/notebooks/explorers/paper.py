"""Explorer of the tables: the paper's and one's own, a metric, a group of subsets, an order."""

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spdlib import comparison, paper
from spdlib.notebooks.explorers.explorer import explorer, menu, plain
from spdlib.notebooks.figures import panels, style
from spdlib.notebooks.figures import paper as plots

PAIRS = [("simsiam", "simsiam_spd"), ("supervised", "supervised_spd")]
ALL = "all"
ORDERS = (
    "as printed", "by name", "by the first baseline", "by the first gain", "by the second gain",
)  # fmt: skip


def table_explorer(prepared: pd.DataFrame | None = None) -> widgets.VBox:
    """Any table, subset by subset; starts with the paper's Table 7.

    Args:
        prepared: One's own results as :func:`spdlib.comparison.prepare` returns them; their
            tables follow the paper's in the menu.
    """
    own = {} if prepared is None or prepared.empty else comparison.tables(prepared)
    first = paper.tidy().drop_duplicates("table").itertuples()
    options = [(row.table, f"{row.table}: {row.protocol} {row.task}") for row in first]
    controls = {
        "table": menu([*options, *((name, f"yours: {name}") for name in own)]),
        "metric": menu(plain(paper.METRICS)),
        "group": menu(plain([ALL, *paper.GROUPS]), description="subsets"),
        "sort": menu(plain(ORDERS), description="order"),
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
    if isinstance(table, int):
        rows, pairs = paper.tidy(table, means=True).assign(label=lambda t: t.subset), PAIRS
        title = f"Table {table}, {rows.protocol[0]} anomaly {rows.task[0]}"
    else:
        rows, pairs, title = *_own_rows(own[table]), table
    if group != ALL:
        rows = rows[rows.group == group]
        title += f"\n{group}"
    rows = rows[rows.metric == metric]
    if rows.empty:
        return panels.nothing(f"no {metric} of {group} in this table")
    return plots.dumbbells(_sorted(rows, pairs, sort), metric, pairs, title)


def _own_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Means of one's own repetitions, and which methods to join by a line."""
    means = comparison.summary(rows)
    groups = paper.tidy(7).drop_duplicates("visa_category").set_index("visa_category").group
    label = means.dataset + " " + means.category
    label += means.setting.map(lambda setting: f"\n{setting}" if setting else "")
    means = means.assign(label=label, mark="", group=means.category.map(groups))
    found = comparison.gains(rows)[["baseline", "method"]].drop_duplicates()
    pairs = list(found.itertuples(index=False, name=None))
    paired = {name for pair in pairs for name in pair}
    alone = [name for name in means.method.unique() if name not in paired]
    return means, pairs + [(name, name + style.SPD_SUFFIX) for name in alone]


def _sorted(rows: pd.DataFrame, pairs: list[tuple[str, str]], order: str) -> pd.DataFrame:
    """Rows in the order asked for; the mean stays at the end."""
    wide = rows.pivot_table(index="label", columns="method", values="value")  # sorted by name
    first, *others = [wide.reindex(columns=pair) for pair in pairs]
    second = others[0] if others else first
    keys = {
        "as printed": pd.Series(0.0, wide.index),
        "by name": pd.Series(range(len(wide)), wide.index, float),
        "by the first baseline": -first.iloc[:, 0],
        "by the first gain": first.iloc[:, 0] - first.iloc[:, 1],
        "by the second gain": second.iloc[:, 0] - second.iloc[:, 1],
    }[order].fillna(np.inf)
    keys[keys.index == "Mean"] = np.inf
    return rows.sort_values("label", key=lambda labels: labels.map(keys), kind="stable")
