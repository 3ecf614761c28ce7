"""The paper's tables: the file against the printed means, the functions against plain loops."""

import csv
import itertools

import pytest

from spdlib import paper, paths

with open(paths.root() / "data" / "paper" / "tables_7_to_14.csv", newline="") as file:
    ROWS = list(csv.DictReader(file))
COLUMNS = list(itertools.product(range(7, 15), paper.PRETRAININGS, paper.METRICS))


def column(number, pretraining, metric):
    """A column's twelve rows and its printed mean, read without the library."""
    rows = [
        row for row in ROWS
        if (row["table"], row["pretraining"], row["metric"]) == (str(number), pretraining, metric)
    ]  # fmt: skip
    (mean,) = [row for row in rows if row["subset"] == "Mean"]
    return [row for row in rows if row["subset"] != "Mean"], mean


def value(number, subset, pretraining, metric):
    rows, _ = column(number, pretraining, metric)
    (row,) = [row for row in rows if row["subset"] == subset]
    return float(row["value"]), row["status"].startswith("suspect")


@pytest.mark.parametrize(("number", "pretraining", "metric"), COLUMNS)
def test_column_means_are_the_printed_ones_unless_suspect(number, pretraining, metric):
    rows, mean = column(number, pretraining, metric)
    assert len(rows) == 12
    computed = sum(float(row["value"]) for row in rows) / 12
    decimals = len(mean["value"].partition(".")[2])
    # Each value is rounded to 0.05, so their mean is; the printed mean is rounded once more.
    within_rounding = abs(computed - float(mean["value"])) <= 0.05 + 0.5 * 10**-decimals + 1e-9
    suspect = any(row["status"].startswith("suspect") for row in rows)
    assert within_rounding != suspect


def test_statuses_say_what_was_done_to_a_value():
    for row in ROWS:
        digits = row["scanned"].replace(".", "").replace("-", "")
        ours = row["value"].replace(".", "")
        if row["status"] == "as scanned":
            assert float(row["scanned"]) == float(row["value"])
        elif row["status"] == "decimal point restored":
            assert digits == ours
        elif row["status"].startswith("digit inferred"):
            assert digits != ours
        else:
            assert row["status"] == "suspect: column mean off" and digits == ours
        assert 0 <= float(row["value"]) <= 100


def test_table_has_the_papers_layout():
    for number in paper.TABLES:
        found = paper.table(number)
        assert found.shape == (13, 8)
        assert list(found.columns) == list(itertools.product(paper.PRETRAININGS, paper.METRICS))
        subsets = found.index.get_level_values("subset")
        assert list(subsets[[0, 4, 8, 12]]) == ["PCB1", "Macaroni1", "Cashew", "Mean"]
    # Read off the scan by eye.
    assert paper.table(7).loc[("Complex structure", "PCB4")].tolist() == [
        92.3, 93.9, 93.8, 95.2, 98.3, 98.5, 98.9, 99.1,
    ]  # fmt: skip
    assert paper.table(14).loc[("Mean", "Mean")].tolist() == [
        28.5, 81.6, 29.7, 83.2, 28.3, 81.8, 30.6, 81.8,
    ]  # fmt: skip


def test_suspect_and_inferred_values_are_marked_wherever_they_appear():
    for number in paper.TABLES:
        rows = [row for row in ROWS if row["table"] == str(number)]
        statuses = [row["status"] for row in rows]
        suspects = sum(status.startswith("suspect") for status in statuses)
        inferred = sum(status.startswith("digit inferred") for status in statuses)
        text = paper.table(number, "text")
        assert text.map(lambda cell: cell.endswith("?")).sum().sum() == suspects
        assert text.map(lambda cell: cell.endswith("*")).sum().sum() == inferred
        shown = text.map(lambda cell: float(cell.rstrip("?* ")))
        assert (shown - paper.table(number)).abs().max().max() < 0.05  # table 7 prints one 82.84
        for gain in paper.gains(number).itertuples():
            pair = (gain.baseline, f"{gain.baseline}+SPD")
            suspect = any(value(number, gain.subset, p, gain.metric)[1] for p in pair)
            assert gain.suspect == suspect == gain.text.endswith("?")


@pytest.mark.parametrize("number", paper.TABLES)
def test_gains_and_their_signs_against_a_loop(number):
    counts = paper.sign_counts(paper.gains(number)).set_index(["baseline", "metric"])
    for baseline, metric in itertools.product(("SimSiam", "Supervised"), paper.METRICS):
        without, _ = column(number, baseline, metric)
        with_spd, _ = column(number, f"{baseline}+SPD", metric)
        pairs = [
            (float(a["value"]), float(b["value"])) for a, b in zip(without, with_spd, strict=True)
        ]
        found = counts.loc[baseline, metric]
        assert found.up == sum(b > a for a, b in pairs)
        assert found.down == sum(b < a for a, b in pairs)
        assert found.level == sum(b == a for a, b in pairs)
        assert found["mean"] == pytest.approx(sum(b - a for a, b in pairs) / 12)


@pytest.mark.parametrize("number", [7, 8])
def test_disagreements_against_a_loop(number):
    found = paper.disagreements(number)
    assert len(found) == 12 * 6
    for row in found.itertuples():
        difference = {
            metric: round(
                value(number, row.subset, row.second, metric)[0]
                - value(number, row.subset, row.first, metric)[0], 2
            )
            for metric in paper.METRICS
        }  # fmt: skip
        product = difference["AU-PR"] * difference["AU-ROC"]
        assert row.verdict == ("agree" if product > 0 else "disagree" if product < 0 else "tie")


def test_column_means_name_the_suspect_columns():
    means = paper.column_means()
    assert len(means) == len(COLUMNS)
    off = means[means.difference.abs() > means.bound + 1e-9]
    assert off.suspect.all() and means.suspect.sum() == len(off)


def test_a_table_that_is_not_there():
    with pytest.raises(ValueError, match="tables 7 to 14, not 6"):
        paper.table(6)
