"""The explorer of the tables, the styled tables, and one's own results beside the paper's."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spdlib import comparison, paper
from spdlib.notebooks.explorers import paper as explorers
from spdlib.notebooks.explorers.explorer import errors
from spdlib.notebooks.figures import paper as plots
from spdlib.notebooks.figures import tables

RNG = np.random.default_rng(0)
METHODS = ("imagenet", "simsiam", "simsiam_spd", "supervised_spd")


@pytest.fixture(scope="module")
def rows():
    """Made-up results: two categories, three seeds; SPD adds 1, 2 and 6 points."""
    base = dict(dataset="elpv", protocol="1-class", task="detection", downstream_model="PaDiM",
                encoder="resnet18", run="a", setting=None, draw=np.nan)  # fmt: skip
    values = {
        (c, s): RNG.uniform(0.6, 0.9) for c in ("mono", "poly") for s in range(3)
    }  # fmt: skip
    return pd.DataFrame(
        [
            base
            | dict(category=c, seed=s, method=m, metric=metric, low=0.5, high=0.99)
            | dict(value=value + (m == "simsiam_spd") * (0.01, 0.02, 0.06)[s])
            for (c, s), value in values.items()
            for m in METHODS
            for metric in ("AU-PR", "AU-ROC", "AP")
        ]
    )


def rows_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_explorer_follows_every_control(rows):
    box = explorers.table_explorer(comparison.prepare(rows))
    assert errors(box) == []
    own = box.controls["table"].options[-1][1]
    for name, values in {
        "table": [8, 14], "metric": ["AU-ROC"], "group": ["Single instance"],
        "sort": ["by the first gain", "by name", "by the second gain", "by the first baseline"],
    }.items():  # fmt: skip
        for value in values:
            before = bytes(box.picture.value)
            box.controls[name].value = value
            assert errors(box) == []
            after = bytes(box.picture.value)
            assert after.startswith(b"\x89PNG") and after != before, (name, value)
    box.controls["table"].value = own  # which has no such group
    assert errors(box) == []
    box.controls["group"].value = "all"
    assert errors(box) == []


def test_explorer_sorts_by_what_it_says():
    table = paper.table(9)["SimSiam"]["AU-PR"].droplevel(0).drop("Mean")
    spd = paper.table(9)["SimSiam+SPD"]["AU-PR"].droplevel(0).drop("Mean")
    orders = {
        "as printed": list(table.index), "by name": sorted(table.index),
        "by the first baseline": list(table.sort_values(ascending=False, kind="stable").index),
        "by the first gain": list((spd - table).sort_values(ascending=False, kind="stable").index),
    }  # fmt: skip
    for sort, expected in orders.items():
        figure = explorers.draw_table(9, "AU-PR", "all", sort, {})
        assert rows_of(figure) == [*expected, "Mean"]
    figure = explorers.draw_table(9, "AU-PR", "Complex structure", "as printed", {})
    assert rows_of(figure) == ["PCB1", "PCB2", "PCB3", "PCB4"]


@pytest.mark.parametrize("number", [7, 8])
def test_styled_table_marks_best_gains_and_suspects(number):
    html = tables.styled(number).to_html()
    assert html == tables.styled(number).to_html()  # the same HTML each time
    values = paper.table(number)
    best = sum(
        int((values.xs(metric, level=1, axis=1).max(axis=1) == values.xs(metric, level=1, axis=1).T)
            .to_numpy().sum())
        for metric in paper.METRICS
    )  # fmt: skip
    assert html.count("<b>") == best
    both = [(values[f"{b}+SPD"] - values[b]).round(2) for b in ("SimSiam", "Supervised")]
    assert html.count("▲") == sum(int((gain > 0).to_numpy().sum()) for gain in both)
    assert html.count("▼") == sum(int((gain < 0).to_numpy().sum()) for gain in both)
    text = paper.table(number, "text")
    assert html.count(" ?") == text.map(lambda cell: cell.endswith("?")).to_numpy().sum()
    grounds = re.findall(r"background-color: rgba\(\d+, \d+, \d+, 0\.\d+\)", html)
    assert grounds and "background-color: #" not in html  # translucent: light and dark pages


def test_means_and_gains_of_own_results_against_a_loop(rows):
    prepared = comparison.prepare(rows)
    means = comparison.summary(prepared).set_index(["category", "method", "metric"])
    mine = rows.query("category == 'poly' and method == 'simsiam' and metric == 'AP'").value * 100
    found = means.loc["poly", "simsiam", "AP"]
    assert found.value == pytest.approx(mine.mean()) and found.n == 3
    # Student's interval with two degrees of freedom: t = 4.303.
    half = 4.30265 * mine.std() / 3**0.5
    assert (found.low, found.high) == pytest.approx((mine.mean() - half, mine.mean() + half))

    gains = comparison.gains(prepared).set_index(["category", "method", "metric"])
    gain = gains.loc["mono", "simsiam_spd", "AU-PR"]
    assert (gain.baseline, gain.n) == ("simsiam", 3)
    assert gain.gain == pytest.approx(3)
    assert gain.high - gain.gain == pytest.approx(4.30265 * np.std([1, 2, 6], ddof=1) / 3**0.5)
    # There is no supervised run without SPD, so it is compared with ImageNet.
    assert gains.loc["poly", "supervised_spd", "AU-ROC"].baseline == "imagenet"


def test_pairs_never_mix_seeds_settings_or_files(rows):
    other = rows.assign(setting="n_features=50", value=rows.value / 2, run="b")
    odd = rows[rows.method == "simsiam_spd"].assign(seed=7)  # without a twin
    gains = comparison.gains(comparison.prepare(pd.concat([rows, other, odd])))
    chosen = gains.query("method == 'simsiam_spd'").groupby("setting")
    assert chosen.n.unique().map(list).tolist() == [[3], [3]]
    assert chosen.gain.mean().to_dict() == pytest.approx({"": 3, "n_features=50": 1.5})
    # The same value in two files counts once, as their mean.
    twice = comparison.prepare(pd.concat([rows, rows.assign(value=rows.value + 0.02, run="b")]))
    assert len(twice) == len(rows) and (twice.files == 2).all()
    assert twice.value.mean() == pytest.approx(100 * rows.value.mean() + 1)


def test_one_run_has_the_interval_of_its_images_and_no_verdict(rows):
    single = comparison.prepare(rows[rows.seed == 0])
    means = comparison.summary(single)
    assert means[["low", "high"]].drop_duplicates().values.tolist() == [[50.0, 99.0]]
    assert not means.text.str.contains("±").any()
    lines = comparison.sentences(comparison.gains(single))
    assert len(lines) == 4 and all(line.endswith("one pair tells no sign") for line in lines)
    undecided = comparison.sentences(comparison.gains(comparison.prepare(rows)))
    assert undecided[0] == (
        "elpv mono 1-class detection: simsiam_spd minus simsiam +3.0 (-3.6 to +9.6, 3 pairs): "
        "the sign is open"
    )


def test_of_many_gains_one_beyond_zero_is_not_beyond_chance(rows):
    gains = comparison.gains(comparison.prepare(rows))
    one = gains[(gains.method == "simsiam_spd") & (gains.metric == "AU-PR")].iloc[0]
    assert one.p == pytest.approx(stats.ttest_1samp([1, 2, 6], 0).pvalue)
    near = pd.DataFrame([one.to_dict() | {"p": 0.02, "low": 0.5}])
    assert comparison.sentences(near)[0].endswith("beyond chance")
    other = near.assign(p=0.5, category="poly")
    several = comparison.sentences(pd.concat([near, other, other]))
    assert all(line.endswith("the sign is open") for line in several)


def test_what_is_comparable_is_said(rows):
    prepared = comparison.prepare(rows)
    imagenet = {"images": comparison.IMAGENET_IMAGES, "dataset": "imagenet", "weights": "random"}
    elpv = {"images": 1000, "dataset": "elpv", "weights": "imagenet"}
    found = comparison.comparable(prepared, {"simsiam": elpv}).set_index("method")
    assert set(found["to be compared with the paper"]) == {"signs of gains only"}
    assert found.loc["simsiam", "pretraining data"] == "elpv (1,000 images), from ImageNet weights"
    assert found.loc["simsiam_spd", "pretraining data"].startswith("unknown")
    visa = prepared.assign(dataset="visa", encoder="resnet50")
    found = comparison.comparable(visa, {"simsiam": imagenet, "simsiam_spd": elpv})
    verdicts = found.set_index("method")["to be compared with the paper"]
    assert verdicts["simsiam"] == verdicts["imagenet"] == "values and gains"
    assert verdicts["simsiam_spd"] == "gains; values with care"


def test_own_gains_stand_below_those_of_the_same_protocol(rows):
    other = rows.assign(protocol="1-class on 2-class 5-shot")  # the paper has no such table
    own = comparison.gains(comparison.prepare(pd.concat([rows, other])))
    figure = plots.beside(own, paper.gains())
    shown = rows_of(figure)
    paired = own[own.metric.isin(paper.METRICS) & (own.protocol == "1-class")]
    heading, first, second, *mine = shown
    assert heading == "1-class detection (Table 7)"
    assert (first, second) == tuple(
        f"paper: {name} + SPD, VisA, 12 objects" for name in ("SimSiam", "Supervised")
    )
    assert len(mine) == len(paired) / 2 and all(name.startswith("yours: ") for name in mine)
    drawn = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(drawn[4:]) == pytest.approx(sorted(paired.gain))
    gain = paper.gains(7).query("baseline == 'SimSiam' and metric == 'AU-PR'").gain.mean()
    assert drawn[0] == pytest.approx(gain)
    alone = plots.beside(comparison.gains(comparison.prepare(other)), paper.gains())
    assert len(rows_of(alone)) == 8 * (1 + 2)  # nothing to put below them: the paper's, whole


def test_figures_and_tables_do_without_own_results(rows):
    nothing = comparison.prepare(rows.iloc[:0])
    assert comparison.tables(nothing) == {} and comparison.gains(nothing).empty
    assert comparison.comparable(nothing).empty
    assert len(rows_of(plots.beside(comparison.gains(nothing), paper.gains(7)))) == 1 + 2
    assert errors(explorers.table_explorer(nothing)) == []
    (named,) = comparison.tables(comparison.prepare(rows)).items()
    assert "Mean" in tables.own(*named).to_html()
