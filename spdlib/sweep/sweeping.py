"""A notebook over a grid of parameters: on this machine or on a Dask cluster, and again.

    python -m spdlib.sweep notebooks/03_padim_evaluation.ipynb -g grid.yaml -j 2
    python -m spdlib.sweep notebooks/03_padim_evaluation.ipynb -g grid.yaml --dask tcp://HOST:8786

Each run has a folder of its own under ``runs/sweeps/NOTEBOOK/``, named by its parameters:

    NOTEBOOK.ipynb, .html   executed
    log.txt                 what it printed, and its error
    run.yaml                parameters, state, time, memory
    results/, ...           whatever the notebook writes into ``runs/``

To the notebook that folder *is* ``runs/``, with the encoders of ``runs/encoders`` linked into
it: runs read those and never write over each other. The same sweep started again does what is
missing or failed, and what an older version of the notebook did. All results together go to
``runs/sweeps/NOTEBOOK/results.csv`` and, for notebook 07, into ``runs/results/``.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from spdlib import notebooks, paths, results
from spdlib.progress import Bar
from spdlib.sweep import executors, grids, runner
from spdlib.sweep.runner import LOG, RECORD, Run


def plan(notebook: str | Path, grid: grids.Grid, folder: str | Path | None = None) -> list[Run]:
    """The runs of a grid, checked against the notebook; nothing is started or written.

    Args:
        notebook: Its path.
        grid: See :func:`spdlib.sweep.grids.expand`.
        folder: Of the sweep; by default ``runs/sweeps/NOTEBOOK``.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: The grid does not fit the notebook; the message has one line a problem.
    """
    notebook = Path(notebook).absolute()
    known = grids.declared(notebook)
    combinations = grids.expand(grid)
    grids.check(notebook, combinations)
    folder = Path(folder or paths.runs() / "sweeps" / notebook.stem).absolute()
    code = notebooks.digest(nbformat.read(notebook, as_version=4))
    off = {"interactive": False} if "interactive" in known.annotations else {}
    return [
        Run(
            notebook=notebook,
            parameters=parameters,
            folder=folder / grids.name(parameters, order=known.annotations),
            code=code,
            extra={name: value for name, value in off.items() if name not in parameters},
            departs=[
                name
                for name, value in parameters.items()
                if name not in known.defaults or known.defaults[name] != value
            ],
        )
        for parameters in combinations
    ]


def sweep(
    notebook: str | Path,
    grid: grids.Grid,
    on: Any = 1,
    folder: str | Path | None = None,
    threads: int | None = None,
    memory: float | str | None = None,
    again: bool = False,
) -> pd.DataFrame:
    """Runs what a grid lacks, and gathers the results.

    Args:
        notebook: Its path.
        grid: Lists of values by parameter, see :func:`spdlib.sweep.grids.expand`.
        on: Where: a number of processes on this machine (1 is in order), the address of a Dask
            scheduler or its ``Client``, or any executor of ``concurrent.futures``. Workers
            elsewhere must see the same files at the same paths.
        folder: Of the sweep; by default ``runs/sweeps/NOTEBOOK``.
        threads: Of each run; by default the machine's cores divided by the runs at once.
        memory: That a run may need, bytes or ``"6GB"``: no more run at once than there is room
            for. ``run.yaml`` of a finished run says what it took.
        again: Run everything, also what is done.

    Returns:
        One row a run, as :func:`runs` gives them. A failed run stops no other; its row has the
        notebook's error.

    Raises:
        ValueError: The grid does not fit the notebook, or memory does not suffice for one run.
    """
    planned = plan(notebook, grid, folder)
    todo = [run for run in planned if again or not run.is_done]
    where = planned[0].folder.parent
    if todo:
        with executors.executor(on, threads, memory) as (executor, at_once, threads):
            _work(todo, executor, at_once or len(todo), threads)
    collect(where)
    table = runs(where)
    return table[table.run.isin([run.folder.name for run in planned])].reset_index(drop=True)


def runs(folder: str | Path) -> pd.DataFrame:
    """All runs in a sweep's folder: columns ``run``, each parameter, ``state``, ``error``,
    ``seconds``, ``peak_gb``, ``threads``, ``host``, ``started`` and ``code``."""
    columns = ["state", "error", "seconds", "peak_gb", "threads", "host", "started", "code"]
    rows = []
    for path in sorted(Path(folder).glob(f"*/{RECORD}")):
        record = runner.read(path.parent)
        about = {column: record.get(column) for column in columns}
        rows.append({"run": path.parent.name, **record.get("parameters", {}), **about})
    table = pd.DataFrame(rows, columns=None if rows else ["run", *columns])
    return table[[c for c in table.columns if c not in columns] + columns]


def collect(folder: str | Path) -> pd.DataFrame:
    """Gathers the results of all finished runs in a sweep's folder into one tidy table.

    Writes ``results.csv`` and ``runs.csv`` there, and ``sweep_NOTEBOOK.json`` into
    ``runs/results``. Of runs by different versions of the notebook the newest version's count.

    Returns:
        The rows, with the column ``run`` and a column for each parameter of the grids that they
        do not tell already. Those that depart from the notebook's defaults are the ``setting``.

    Raises:
        ValueError: A run's file of results cannot be read; names it.
    """
    folder = Path(folder)
    table = runs(folder)
    if table.empty:
        return pd.DataFrame(columns=[*results.COLUMNS, "run"])
    with paths.replacing(folder / "runs.csv") as temporary:
        table.to_csv(temporary, index=False)
    done = table[table.state == "done"]
    done = done[done.code == done.sort_values("started").code.iloc[-1]] if len(done) else done
    parts = {run: results.read(folder / run / "results").drop(columns="run") for run in done.run}
    parts = {run: rows for run, rows in parts.items() if len(rows)}
    if not parts:
        return pd.DataFrame(columns=[*results.COLUMNS, "run"])
    records = {run: runner.read(folder / run) for run in parts}
    untold = [
        name
        for name in table.columns[1 : table.columns.get_loc("state")]
        if not all(_is_told(name, records[run], rows) for run, rows in parts.items())
    ]
    for run, rows in parts.items():
        new = {n: v for n, v in records[run]["parameters"].items() if n in untold}
        columns = {name: str(v) if isinstance(v, list) else v for name, v in new.items()}
        setting = {name: new[name] for name in untold if name in records[run]["departs"]}
        text = grids.name(setting, order=untold) if setting else None
        parts[run] = rows.assign(**columns, setting=text, run=run)
    found = pd.concat(parts.values(), ignore_index=True)
    with paths.replacing(folder / "results.csv") as temporary:
        found.to_csv(temporary, index=False)
    about = {"sweep": paths.show(folder.absolute()), "runs": len(done)}
    results.save(f"sweep_{folder.name}", found.drop(columns="run"), about)
    return found


def _work(todo: list[Run], executor: Executor, at_once: int, threads: int) -> None:
    project = {
        "data": str(paths.data().absolute()),
        "encoders": str(paths.encoders().absolute()),
        "cwd": os.getcwd(),
    }
    waiting, running, failed = list(reversed(todo)), {}, 0
    try:
        with Bar(len(todo), todo[0].notebook.stem, "runs", seconds=0.1) as bar:
            while waiting or running:
                while waiting and len(running) < at_once:
                    run = waiting.pop()
                    run.folder.mkdir(parents=True, exist_ok=True)
                    (run.folder / RECORD).unlink(missing_ok=True)
                    running[_submit(executor, run, threads, project)] = run
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    record = _outcome(future, running.pop(future))
                    failed += record["state"] != "done"
                    bar.update(note=f"{failed} failed" if failed else "")
    except BaseException:
        for future in running:
            future.cancel()
        for process in list(runner.PROCESSES):
            process.terminate()
        raise


def _submit(executor: Executor, *arguments: Any) -> Future:
    try:
        return executor.submit(runner.run_one, *arguments)
    except RuntimeError as error:  # a pool that lost a process takes no more work
        future = Future()
        future.set_exception(error)
        return future


def _outcome(future: Future, run: Run) -> dict[str, Any]:
    try:
        return future.result()
    except (Exception, CancelledError) as error:
        # The worker is lost, not the notebook: what it was doing then has no record of an end.
        record = {"parameters": run.parameters, "code": run.code, "state": "failed"}
        record["error"] = f"{type(error).__name__}: {error}"
        runner.write(run.folder, record)
        return record


def _is_told(name: str, record: dict[str, Any], rows: pd.DataFrame) -> bool:
    """Whether rows of results tell a run's parameter already: by its name, or as a word."""
    if name in rows.columns or name not in record["parameters"]:
        return True
    value = record["parameters"][name]
    words = set(value) if isinstance(value, list) else {value}
    columns = [column for column in results.COLUMNS if column in rows.columns]
    is_words = all(isinstance(word, str) for word in words)
    return is_words and any(set(rows[column].unique()) == words for column in columns)


def _notebook(name: str) -> Path:
    """A notebook by its path, or one of the project's by the beginning of its name."""
    return Path(name) if Path(name).suffix == ".ipynb" else notebooks.find([name])[0]


def _report(table: pd.DataFrame, where: Path) -> None:
    counts = table.state.value_counts()
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for run in table[table.state != "done"].itertuples():
        print(f"  {run.run}: {run.error}\n      see {paths.show(where / run.run / LOG)}")
    if (where / "results.csv").is_file():
        print(f"results of all: {paths.show(where / 'results.csv')}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m spdlib.sweep", description=__doc__.splitlines()[0]
    )
    parser.add_argument("notebook", help="its path, or the beginning of its name: 03")
    parser.add_argument("-g", "--grid", metavar="FILE", help="YAML: lists of values by parameter")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUES"),
        help="a parameter's value, or list of values as in YAML: -p seed '[0, 1, 2]'",
    )  # fmt: skip
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes at once, here")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a scheduler, e.g. tcp://HOST:8786")
    parser.add_argument("--threads", type=int, help="of each run; by default cores / runs at once")
    parser.add_argument("--memory", help="that a run may need, e.g. 6GB: limits the runs at once")
    parser.add_argument("-o", "--output", help="folder; by default runs/sweeps/NOTEBOOK")
    parser.add_argument("--again", action="store_true", help="run what is done, too")
    parser.add_argument("--list", action="store_true", help="say what would run, and end")
    given = parser.parse_args(arguments)
    try:
        notebook = _notebook(given.notebook)
        grid = grids.load(given.grid) if given.grid else {}
        values = {name: grids.parse(text) for name, text in given.p}
        grid = {**grid, **values} if isinstance(grid, dict) else [{**g, **values} for g in grid]
        planned = plan(notebook, grid, given.output)
        if given.list:
            for run in planned:
                done = run.is_done and not given.again
                print(f"{'done' if done else 'to do':<6} {run.folder.name}")
            return 0
        on = given.dask or given.jobs
        options = {"folder": given.output, "threads": given.threads, "memory": given.memory}
        table = sweep(notebook, grid, on, again=given.again, **options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    _report(table, planned[0].folder.parent)
    return 0 if (table.state == "done").all() else 1
