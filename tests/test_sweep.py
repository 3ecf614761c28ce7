"""Sweeps: grids against a notebook, runs on processes and on a Dask cluster, resumed, killed."""

import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import psutil
import pytest
from notebook_files import write_notebook

from spdlib import execution, paths, results, sweep

PARAMETERS = """\
x: int = 1  # what is measured; 13 fails unless the file `mended` is there
label: str = "a"  # any text
scale: float | None = None  # a number or nothing
wait: bool = False  # for the file `go`; wait=True waits
seed: int = 0  # of nothing
categories: list[str] | None = None  # of nothing
interactive: bool = True  # explorers
"""
WORK = """\
import json, os, time
from pathlib import Path
from spdlib import paths
while wait and not (paths.data() / "go").exists():
    time.sleep(0.05)
print("x is", x, flush=True)
if x == 9:
    os.kill(os.getpid(), 9)  # as the system does when memory is short
if x == 13 and not (paths.data() / "mended").exists():
    raise ValueError("unlucky number")
row = dict(dataset="toy", category=label, protocol="1-class", task="detection",
           downstream_model="PaDiM", encoder="none", method="imagenet", seed=seed,
           metric="AU-ROC", value=x / 100)
assert not interactive
paths.results().mkdir(exist_ok=True)
paths.encoders().mkdir(exist_ok=True)
with paths.replacing(paths.encoders() / "shared.safetensors") as file:
    file.write_text(f"changed by {x}")
about = {"threads": os.environ["OMP_NUM_THREADS"],
         "read": (paths.encoders() / "other.safetensors").read_text()}
(paths.results() / "toy.json").write_text(
    json.dumps({"format": "spdlib.results.v1", "about": about, "rows": [row]}))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A notebook, and folders of its own for runs and data."""
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    paths.encoders().mkdir(parents=True)
    for name in ("shared", "other"):
        (paths.encoders() / f"{name}.safetensors").write_text("original")
    return write_notebook(tmp_path / "toy.ipynb", WORK, parameters=PARAMETERS)


def test_grids_expand_to_all_combinations():
    grid = {"a": [1, 2], "b": ["x", "y", "z"], "c": 0.5, "d": [[1, 2]]}
    expected = [dict(a=a, b=b, c=0.5, d=[1, 2]) for a, b in itertools.product([1, 2], "xyz")]
    assert sweep.expand(grid) == expected
    assert sweep.expand([{"a": [1, 2]}, {"b": 1}]) == [{"a": 1}, {"a": 2}, {"b": 1}]
    assert sweep.expand({}) == [{}]


def test_names_of_runs_are_told_apart_and_fit_a_file_system():
    values = [1, 1.0, "1", True, "True", None, "None", "null", "a b", "a_b", "a/b", "../a", "", "é",
              ["a", "b"], "a+b", ["a"], "a", "x=1,y=2", "l" * 300, "l" * 301, [[1], 2], [1, 2],
              {"k": 1}]  # fmt: skip
    names = [sweep.name({"x": value}) for value in values]
    assert len(set(names)) == len(values)
    assert all(len(name) < 180 and "/" not in name and name.isascii() for name in names)
    assert sweep.name({"a": "poly", "b": 1}) == "a=poly,b=1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: [1, 2]", r"sead: unknown parameter; did you mean 'seed'\?"),
        ("{x: [1, two], seed: 0.5}", r"seed: .*integer.*not '0\.5'\n  x: .*integer.*not 'two'"),
        ("interactive: maybe", "interactive: .*boolean.*not 'maybe'"),
        ("x: [[1, 2]]", r"x: .*integer, not \['1', '2'\]"),
        ("x: []", "x has an empty list of values"),
        ("[1, 2]", "a grid gives lists of values by parameter"),
        ("x: 2024-01-01", "x: .*integer.*, not '2024-01-01'"),
        ("x: [1", r"grid\.yaml: not YAML"),
        ("categories: [mono]", "categories: .*list, not 'mono'"),
    ],
)
def test_a_grid_that_does_not_fit_starts_nothing(text, message, toy, tmp_path):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        sweep.sweep(toy, sweep.load(tmp_path / "grid.yaml"))
    assert not (paths.runs() / "sweeps").exists()


def test_text_of_a_grid_is_read_by_the_declared_type(toy, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "{scale: [1e-3, 2, null], label: [01, no, 2024-01-31], categories: [[01, mono], null]}"
    )
    runs = [run.parameters for run in sweep.plan(toy, sweep.load(tmp_path / "grid.yaml"))]
    assert {run["scale"] for run in runs} == {0.001, 2.0, None}
    assert {run["label"] for run in runs} == {"01", "no", "2024-01-31"}
    assert [run["categories"] for run in runs[:2]] == [["01", "mono"], None]


def test_runs_that_are_the_same_are_planned_once(toy):
    runs = sweep.plan(toy, [{"x": ["1", "01"]}, {"x": 1}, {"x": 2}])
    assert [run.parameters for run in runs] == [{"x": 1}, {"x": 2}]
    assert [run.setting for run in runs] == [{}, {"x": 2}]


def test_runs_read_the_encoders_of_their_own_data_set(tmp_path, monkeypatch):
    monkeypatch.delenv("SPDLIB_RUNS", raising=False)
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    notebook = write_notebook(tmp_path / "n.ipynb", parameters='dataset: str = "elpv"\nx: int = 1')
    runs = tmp_path / "runs"
    one, two = sweep.plan(notebook, {"dataset": ["elpv", "/parts"]})
    assert (one.encoders, two.encoders) == (runs / "encoders", runs / "parts" / "encoders")
    assert one.folder.parent == two.folder.parent == runs / "sweeps" / "n"
    (alone,) = sweep.plan(notebook, {"dataset": "/parts"})
    assert alone.folder.parent == runs / "parts" / "sweeps" / "n"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("batch #2", ["batch #2"]),
        ("lot: 7", ["lot: 7"]),
        ("[a, 01]", ["a", "01"]),
        ('["[a]"]', ["[a]"]),
        ("[a", ["[a"]),
        ("@home", ["@home"]),
        ("{a}", ["{a}"]),
    ],
)
def test_text_on_the_command_line_is_text_or_a_list_of_it(text, values, toy, monkeypatch):
    monkeypatch.setattr(sweep, "sweep", lambda notebook, grid, *more, **named: 1 / 0)
    planned = []
    plan = sweep.plan
    monkeypatch.setattr(sweep, "plan", lambda *given: planned.extend(plan(*given)) or planned)
    assert sweep.main([str(toy), "-p", "label", text, "--list"]) == 0
    assert [run.parameters["label"] for run in planned] == values
    assert all(run.folder.parent == paths.runs() / "sweeps" / "toy" for run in planned)


@pytest.mark.parametrize("path", execution.find(), ids=lambda path: path.stem[:2])
def test_the_projects_notebooks_declare_what_a_sweep_can_check(path):
    known = execution.declared(path)
    assert {"seed", "interactive"} < set(known)
    assert all(parameter.kind is not Any for parameter in known.values())
    with pytest.raises(ValueError, match=r"seed: .*integer.*, not 'one'"):
        sweep.plan(path, {"seed": [1, "one"]})


def test_the_command_line_lists_and_refuses(toy, capsys, tmp_path):
    assert sweep.main([str(toy), "-p", "x", "[1, 2]", "-p", "label", "b", "--list"]) == 0
    assert capsys.readouterr().out == "to do  x=1,label=b\nto do  x=2,label=b\n"
    assert sweep.main([str(toy), "-p", "y", "1"]) == 2
    assert "y: unknown parameter" in capsys.readouterr().err
    assert sweep.main([str(tmp_path / "none.ipynb")]) == 2
    assert "no notebook" in capsys.readouterr().err
    assert sweep.main([str(toy), "--memory", "much"]) == 2
    assert "memory: 'much' is not a size" in capsys.readouterr().err
    assert not (paths.runs() / "sweeps").exists()


def test_memory_and_threads_bound_the_runs_at_once(monkeypatch):
    free = 10e9
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": free}))
    monkeypatch.setattr(sweep, "cores", lambda: 12)

    def at_once(on, threads, memory):
        with sweep._executor(on, threads, sweep._bytes(memory)) as (executor, threads):
            return executor._max_workers, threads

    assert at_once(8, None, "3GB") == (3, 4)
    assert at_once(2, None, 3e9) == (2, 6)
    assert at_once(8, 5, None) == (8, 5)
    with ThreadPoolExecutor(4) as own, sweep._executor(own, None, 0) as place:
        assert place == (own, 3)
    with pytest.raises(ValueError, match=r"1 processes of 11\.0 GB of memory: 0 fit here"):
        at_once(1, None, "11GB")


@pytest.mark.slow
def test_a_failing_run_stops_no_other_and_only_what_failed_runs_again(toy, capsys):
    command = [str(toy), "-p", "x", "[1, 9, 13]", "-j", "2", "--threads", "1"]
    assert sweep.main(command) == 1
    out = capsys.readouterr().out
    assert out.startswith("2 failed, 1 done\n")
    assert "x=13: cell 3: ValueError: unlucky number" in out
    assert "x=9: Kernel died; perhaps for want of memory, see --memory" in out
    folder = paths.runs() / "sweeps" / "toy"
    good, bad = folder / "x=1", folder / "x=13"
    assert "x is 13" in (bad / "log.txt").read_text()
    assert "ValueError: unlucky number" in (bad / "log.txt").read_text()
    assert sorted(path.name for path in good.iterdir()) == [
        "encoders", "log.txt", "results", "run.yaml", "toy.html", "toy.ipynb",
    ]  # fmt: skip
    # Encoders are read from where they were and written apart; threads are set.
    assert [path.name for path in (good / "encoders").iterdir()] == ["shared.safetensors"]
    assert (paths.encoders() / "shared.safetensors").read_text() == "original"
    about = json.loads((good / "results" / "toy.json").read_text())["about"]
    assert about == {"threads": "1", "read": "original"}
    assert pd.read_csv(folder / "results.csv").value.tolist() == [0.01]

    before = (good / "run.yaml").read_bytes()
    (paths.data() / "mended").touch()
    assert sweep.main([str(toy), "-p", "x", "[1, 13]"]) == 0
    assert "2 done" in capsys.readouterr().out
    assert (good / "run.yaml").read_bytes() == before
    table = pd.read_csv(folder / "results.csv")
    assert table[["x", "value", "run"]].values.tolist() == [[1, 0.01, "x=1"], [13, 0.13, "x=13"]]
    back = results.read()  # for notebook 07: what departs from the notebook is a setting
    assert back.value.tolist() == [0.01, 0.13]
    assert back.setting.fillna("").tolist() == ["", "x=13"]
    # Another version of the notebook makes both old, and so does another value.
    assert all(run.is_done for run in sweep.plan(toy, {"x": [1, 13]}))
    write_notebook(toy, WORK + "\n# better", parameters=PARAMETERS)
    assert not any(run.is_done for run in sweep.plan(toy, {"x": [1, 13]}))


@pytest.mark.slow
def test_a_dask_cluster_finishes_what_a_killed_worker_began(toy):
    from distributed import Client, LocalCluster

    grid = {"x": [1, 2], "wait": True}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
        as cluster, Client(cluster) as client, ThreadPoolExecutor(1) as aside,
    ):  # fmt: skip
        workers = set(client.run(os.getpid).values())
        assert len(workers) == 2 and os.getpid() not in workers
        swept = aside.submit(sweep.sweep, toy, grid, client)
        folder = paths.runs() / "sweeps" / "toy" / "x=1,wait=true"
        killed = wait_for(lambda: swept.done() or run_in(folder))
        worker = psutil.Process(*killed).ppid()
        assert worker in workers
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not any(psutil.pid_exists(pid) for pid in killed))
        (paths.data() / "go").touch()
        table = swept.result(timeout=600)
    assert table.state.tolist() == ["done"] * 2, table.error.tolist()
    assert table.threads.tolist() == [max(1, sweep.cores() // 2)] * 2
    found = sweep.collect(folder.parent).sort_values("x")
    assert found.value.tolist() == [0.01, 0.02]
    assert not sweep.sweep(toy, grid, on="tcp://nowhere:1").empty  # nothing left to connect for


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_runs(toy):
    command = [sys.executable, "-m", "spdlib.sweep", str(toy), "-p", "wait", "true"]
    folder = paths.runs() / "sweeps" / "toy" / "wait=true"
    # A shell's background jobs ignore the signal, and so do their children.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed) as process:
        try:
            running = wait_for(lambda: run_in(folder))
            process.send_signal(signal.SIGINT)
            assert process.wait(60) != 0
        finally:
            process.kill()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in running))
    assert not any(run.is_done for run in sweep.plan(toy, {"wait": True}))


def run_in(folder):
    """The kernel of a run, once it is there."""
    for process in psutil.process_iter(["cmdline"]):
        is_kernel = "ipykernel_launcher" in (process.info["cmdline"] or [])
        if is_kernel and process.environ().get("SPDLIB_RUNS") == str(folder):
            return [process.pid]
    return None


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.1)
    return found
