"""Files of results: what is saved comes back, from many files, and what is wrong is named."""

import json
import math

import pandas as pd
import pytest

from spdlib import metrics, paths, results

COLUMNS = dict(
    dataset="elpv", category="poly", protocol="1-class", task="detection",
    downstream_model="PaDiM", encoder="resnet18", method="simsiam_spd", seed=3,
)  # fmt: skip
LABELS, SCORES = [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.35, 0.8, 0.2, 0.9]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path))
    return tmp_path


def test_what_is_saved_comes_back_whole(runs):
    found = metrics.evaluate(LABELS, SCORES)
    table = results.rows(found, {"aupr": (0.5, 0.9)}, **COLUMNS, backbone="layer2", draw=None)
    path = results.save("03_padim_evaluation", table, {"seed": 3})
    assert path == runs / "results" / "03_padim_evaluation.json"

    back = results.read()
    assert set(back.run) == {"03_padim_evaluation"} and set(back.backbone) == {"layer2"}
    assert (back[list(COLUMNS)] == pd.Series(COLUMNS)).all(axis=None)
    values = back.set_index("metric").value
    assert values.to_dict() == {
        "AU-PR": metrics.aupr(LABELS, SCORES), "AU-ROC": metrics.auroc(LABELS, SCORES),
        "AP": metrics.average_precision(LABELS, SCORES),
        "max F1": metrics.max_f1(LABELS, SCORES).f1,
    }  # fmt: skip
    intervals = back.set_index("metric")[["low", "high"]]
    assert intervals.loc["AU-PR"].tolist() == [0.5, 0.9]
    assert intervals.drop("AU-PR").isna().all(axis=None)
    assert json.loads(path.read_text())["about"] == {"seed": 3}
    csv = pd.read_csv(path.with_suffix(".csv"))
    assert csv.value.tolist() == back.value.tolist()
    assert list(csv.columns[: len(results.COLUMNS)]) == list(results.COLUMNS)


def test_many_files_are_read_together():
    one = pd.DataFrame([{**COLUMNS, "metric": "AU-PR", "value": 0.25}])
    results.save("a", one)
    results.save("b", pd.concat([one, one]).assign(draw=[0, 1], seed=4))
    results.save("empty", one.iloc[:0])
    back = results.read()
    assert back.run.tolist() == ["a", "b", "b"]
    assert math.isnan(back.draw[0]) and back.draw[1:].tolist() == [0, 1]
    assert back.seed.tolist() == [3, 4, 4]


def test_without_results_there_are_columns_and_no_rows():
    assert results.read().empty
    assert list(results.read().columns) == [*results.COLUMNS, "run"]


def test_what_cannot_be_a_table_of_results_is_refused():
    one = pd.DataFrame([{**COLUMNS, "metric": "AU-PR", "value": 0.25}])
    with pytest.raises(ValueError, match="it lacks encoder, value"):
        results.save("a", one.drop(columns=["encoder", "value"]))
    for value in (25.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"shares, in \[0, 1\]"):
            results.save("a", one.assign(value=value))
    assert not paths.results().exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rows": [', "runs/results/b.json is not JSON"),
        ('{"rows": []}', "runs/results/b.json was not written by"),
        ("[1, 2]", "runs/results/b.json was not written by"),
    ],
)
def test_a_file_of_something_else_is_named(text, message):
    results.save("a", pd.DataFrame([{**COLUMNS, "metric": "AU-PR", "value": 0.25}]))
    (paths.results() / "b.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        results.read()
