"""The paper's tables and one's own, to read on a page.

Styled tables carry their marks in the text (bold, ▲ ▼, ? and *), so that they say the same
where colours are not shown; grounds are translucent, for light and dark pages.
"""

import zlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from spdlib import comparison, paper
from spdlib.notebooks.figures import style

UP, DOWN = "0, 114, 178", "213, 94, 0"  # Okabe and Ito's blue and vermilion
FULL = 10.0  # percentage points of gain that are coloured at full strength
WEAKEST, STRONGEST = 0.08, 0.45  # opacity

Names = Mapping[str, str]
_CAPTION = "caption-side: top; text-align: left; font-weight: bold; white-space: nowrap"


def styled(number: int) -> Styler:
    """A table of the paper as it is printed, with the best of each row and metric in bold and
    what + SPD adds to its baseline as ▲ or ▼ on a coloured ground."""
    values, text = paper.table(number), paper.table(number, "text")
    values, text = (frame.rename(columns=spaced, level=0) for frame in (values, text))
    pairs = {spaced(f"{b}+SPD"): spaced(b) for b in ("SimSiam", "Supervised")}
    first = paper.tidy(number).iloc[0]
    caption = f"Table {number}. {first.protocol} anomaly {first.task} ({first.downstream_model})"
    return style_table(values, text, pairs, f"{caption}, VisA, %", f"paper{number}")


def style_table(
    values: pd.DataFrame, text: pd.DataFrame, pairs: Names, caption: str, uuid: str
) -> Styler:
    """A table of methods and metrics with the best in bold and gains coloured.

    Args:
        values: Numbers; columns are (method, metric), NaN where nothing was measured.
        text: Text of the cells, of the same shape.
        pairs: Method with SPD to its baseline.
        caption: Text above the table.
        uuid: Names the HTML, so that the same table is always the same HTML.
    """
    several = len(values.columns.unique(0)) > 1
    best = values.T.groupby(level=1).transform("max").T.eq(values) & several
    theirs = [(pairs.get(method), metric) for method, metric in values]
    gains = (values - values.reindex(columns=theirs).to_numpy()).round(2)
    cells = text.fillna("–") + _arrows(gains)
    styler = _captioned(cells.where(~best, "<b>" + cells + "</b>"), caption, uuid)
    styler.apply(lambda _: gains.map(_ground), axis=None)
    if values.index[-1][-1] == "Mean":
        line = {"border-top": "1px solid rgba(127, 127, 127, 0.8)"}
        styler.set_properties(pd.IndexSlice[[values.index[-1]], :], **line)
    return styler


def own(name: str, rows: pd.DataFrame) -> Styler:
    """A table of one's own results in the paper's layout: means, ± half a 95 % interval.

    Args:
        name: Text above the table.
        rows: One of :func:`spdlib.comparison.tables`.
    """
    means = comparison.summary(comparison.with_means(rows))
    means = means[means.metric.isin([*paper.METRICS, "AU-PRO"])]
    index = ["dataset", *(["setting"] if means.setting.any() else []), "category"]
    named = means[index].map(style.readable).assign(method=means.method.map(style.method_name))
    means, across = means.assign(**named), ["method", "metric"]
    values, text = (paper.layout(means, index, across, show) for show in ("value", "text"))
    found = comparison.gains(rows)[["method", "baseline"]].map(style.method_name)
    shown, pairs = style.readable(name), dict(found.to_numpy().tolist())
    uuid = f"own{zlib.crc32(shown.encode())}"
    return style_table(values, text, pairs, f"Yours: {shown}, %", uuid)


def gain_counts(counts: pd.DataFrame) -> Styler:
    """Mean gains and their signs, as :func:`spdlib.paper.sign_counts` gives them."""
    arrows = _arrows(counts["mean"].round(1))
    cell = [
        f"{row.mean:+.1f}{arrow} ({row.up}/{row.down}){' ?' if row.suspect else ''}"
        for row, arrow in zip(counts.itertuples(), arrows, strict=True)
    ]
    rows = counts.assign(cell=cell, baseline=counts.baseline.map("{} + SPD".format))
    keys = {"index": ["table", "protocol", "task"], "columns": ["baseline", "metric"]}
    cells, values = (paper.layout(rows, **keys, show=show) for show in ("cell", "mean"))
    caption = "Mean gain of + SPD over twelve subsets, percentage points (subsets up/down)"
    styler = _captioned(cells, caption, "gains")
    return styler.apply(lambda _: values.map(_ground), axis=None)


def plain(table: pd.DataFrame, caption: str, uuid: str) -> Styler:
    """Any table in the same dress."""
    left = {"selector": "td, th.col_heading:not(.level0)", "props": "text-align: left"}
    return _captioned(table, caption, uuid).set_table_styles([left], overwrite=False)


def spaced(name: str) -> str:
    return name.replace("+", " + ")


def _captioned(cells: pd.DataFrame, caption: str, uuid: str) -> Styler:
    dress = [
        {"selector": "caption", "props": _CAPTION},
        {"selector": "th", "props": "text-align: left; vertical-align: top; font-weight: normal"},
        {"selector": "td", "props": "text-align: right; padding: 0.15em 0.7em"},
        {"selector": "th.col_heading:not(.level0)", "props": "text-align: right"},
    ]
    return cells.style.set_caption(caption).set_table_styles(dress).set_uuid(uuid)


def _arrows(gains: pd.DataFrame | pd.Series) -> np.ndarray:
    return np.select([gains > 0, gains < 0], [" ▲", " ▼"], "")


def _ground(gain: float) -> str:
    """A cell's translucent ground: blue for a gain, vermilion for a loss."""
    if not gain or np.isnan(gain):
        return ""
    opacity = WEAKEST + (STRONGEST - WEAKEST) * min(abs(gain) / FULL, 1) ** 0.5
    return f"background-color: rgba({UP if gain > 0 else DOWN}, {opacity:.2f})"
