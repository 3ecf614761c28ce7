"""A notebook over a grid of parameters: on this machine or on a Dask cluster, and again.

    python -m spdlib.sweep 03 -p seed '[0, 1, 2]' -j 2
    python -m spdlib.sweep notebooks/03_padim_evaluation.ipynb -g grid.yaml --dask tcp://HOST:8786

Each run has a kernel of its own, so that one which crashes stops no other, and a folder under
``runs/sweeps/NOTEBOOK/``, named by its parameters:

    NOTEBOOK.ipynb, .html   executed
    log.txt                 what it printed, and its error
    run.yaml                parameters, state, seconds, error
    results/, ...           whatever the notebook writes into ``runs/``

To the notebook that folder *is* ``runs/``, with the encoders of its data set linked into it:
runs read those and never write over each other. The same sweep started again does what is
missing or failed, and what an older version of the notebook did. All results together go to
``runs/sweeps/NOTEBOOK/results.csv`` and, for notebook 07, into ``runs/results/``.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from pydantic import ByteSize, TypeAdapter, ValidationError

from spdlib import execution, paths, results
from spdlib.execution import Values
from spdlib.progress import Bar

Grid = Mapping[str, Any] | Sequence[Mapping[str, Any]]

RECORD, LOG = "run.yaml", "log.txt"
LONGEST = 160  # characters of a run's name; longer ones end in a digest
WAIT_FOR_WORKERS = 120  # seconds
THREADS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
# Parameters that are no setting of their own: columns of the results tell them.
TOLD = {"dataset", "categories", "encoders", "architecture", "detector", "seed"}


@dataclass(frozen=True)
class Run:
    """One notebook with one set of parameters, in one folder.

    Attributes:
        notebook: Path of the notebook.
        parameters: Parameters of the grid, as the notebook declares them.
        setting: Parameters among them that are not the notebook's defaults.
        extra: Parameters that are no part of the grid: explorers off.
        folder: Folder for everything that the run writes.
        code: Digest of the notebook's code, see :func:`spdlib.execution.digest`.
        encoders: Folder of its data set's pretrained encoders.
    """

    notebook: Path
    parameters: Values
    setting: Values
    extra: Values
    folder: Path
    code: str
    encoders: Path

    @property
    def record(self) -> Values:
        """The beginning of ``run.yaml``."""
        about = {"notebook": str(self.notebook), "parameters": self.parameters}
        return about | {"setting": self.setting, "code": self.code}

    @property
    def is_done(self) -> bool:
        """Whether these parameters have been run to the end, by the code as it is now."""
        done = self.record | {"state": "done"}
        executed = self.folder / self.notebook.name
        return done.items() <= read(self.folder).items() and executed.is_file()


def load(path: str | Path) -> Grid:
    """A grid from a YAML file: parameters and their lists of values, or a list of such grids.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not YAML, or something else than grids.
    """
    grid = execution.parse(Path(path).read_text(encoding="utf-8"), str(path))
    expand(grid)
    return grid


def expand(grid: Grid) -> list[Values]:
    """The parameters of each run: all combinations, the last parameter changing fastest.

    Args:
        grid: Lists of values by parameter; what is no list is one value, and a value that is a
            list itself stands in a list: ``{"stages": [[1, 2], [3]]}``. Or a list of grids.

    Raises:
        ValueError: It is no grid, or a parameter has no values.

    >>> expand({"category": "poly", "seed": [0, 1]})
    [{'category': 'poly', 'seed': 0}, {'category': 'poly', 'seed': 1}]
    """
    runs = []
    for part in grid if isinstance(grid, list) and grid else [grid]:
        if not isinstance(part, Mapping):
            raise ValueError(f"a grid gives lists of values by parameter, not {part!r}")
        lists = [value if isinstance(value, list) else [value] for value in part.values()]
        if [] in lists:
            raise ValueError(f"grid: {list(part)[lists.index([])]} has an empty list of values")
        runs += [dict(zip(part, values, strict=True)) for values in itertools.product(*lists)]
    return runs


def name(run: Values) -> str:
    """A folder's name for a run, from its parameters; different runs have different names.

    >>> name({"category": "poly", "seed": 1})
    'category=poly,seed=1'
    >>> name({})
    'defaults'
    """
    plain = ",".join(f"{n}={_plain(value)}" for n, value in run.items()) or "defaults"
    safe = re.sub(r"[^\w.,=+-]", "_", plain, flags=re.ASCII)
    if safe == plain and len(safe) <= LONGEST:
        return safe
    text = json.dumps(run, sort_keys=True, default=str)
    return f"{safe[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def plan(notebook: str | Path, grid: Grid, folder: str | Path | None = None) -> list[Run]:
    """The runs of a grid, checked against the notebook; nothing is started or written.

    Args:
        notebook: Path of the notebook.
        grid: Values as :func:`expand` takes; text is read by the types that the notebook declares.
        folder: Folder of the sweep; by default ``sweeps/NOTEBOOK`` in the data set's ``runs``.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: A name or a type does not fit; the message has one line a problem.
    """
    notebook = Path(notebook).absolute()
    known = execution.declared(notebook)
    code = execution.digest(execution.read(notebook))
    quiet = {"interactive": False} if "interactive" in known else {}
    found: list[Values] = []
    problems: dict[str, None] = {}  # each once, in order
    for given in expand(grid):
        try:
            found.append(execution.fit(known, given))
        except ValueError as error:
            problems |= dict.fromkeys(str(error).split("\n  "))
    if problems:
        raise ValueError(f"the grid does not fit {notebook.name}:\n  " + "\n  ".join(problems))
    own = known["dataset"].default if "dataset" in known else None
    home = paths.runs(_only(values.get("dataset", own) for values in found))
    folder = Path(folder or home / "sweeps" / notebook.stem).absolute()
    runs = {}
    for values in found:
        setting = {n: value for n, value in values.items() if known[n].default != value}
        encoders = paths.encoders(values.get("dataset", own)).absolute()
        place = folder / name(values)
        runs[place] = Run(notebook, values, setting, quiet, place, code, encoders)
    return list(runs.values())


def sweep(
    notebook: str | Path,
    grid: Grid,
    on: Any = 1,
    folder: str | Path | None = None,
    threads: int | None = None,
    memory: float | str | None = None,
    again: bool = False,
) -> pd.DataFrame:
    """Runs what a grid lacks, and gathers the results.

    Args:
        notebook: Path of the notebook.
        grid: Lists of values by parameter, see :func:`expand`.
        on: Workers: a number of processes on this machine (1 is in order), the address of a Dask
            scheduler or its ``Client``, or any executor of ``concurrent.futures``. Workers
            elsewhere must see the same files at the same paths.
        folder: Folder of the sweep; by default ``sweeps/NOTEBOOK`` in the data set's ``runs``.
        threads: Threads of each run; by default the machine's cores divided by the runs at once.
        memory: Memory of a run, bytes or ``"6GB"``: no more run at once than there is room
            for.
        again: Whether to run everything, also what is done.

    Returns:
        One row a run, as :func:`runs` gives them. A failed run stops no other; its row has the
        notebook's error.

    Raises:
        ValueError: The grid does not fit the notebook, or memory does not suffice for one run.
    """
    planned = plan(notebook, grid, folder)
    where = planned[0].folder.parent
    if todo := [run for run in planned if again or not run.is_done]:
        with _executor(on, threads, _bytes(memory)) as (executor, threads):
            _work(todo, executor, threads)
    collect(where)
    rows = runs(where)
    return rows[rows.run.isin([run.folder.name for run in planned])].reset_index(drop=True)


def runs(folder: str | Path) -> pd.DataFrame:
    """All runs in a sweep's folder: columns ``run``, each parameter, ``state``, ``error``,
    ``seconds``, ``threads``, ``host``, ``started`` and ``code``."""
    columns = ["state", "error", "seconds", "threads", "host", "started", "code"]
    rows = []
    for path in sorted(Path(folder).glob(f"*/{RECORD}")):
        record = read(path.parent)
        about = {column: record.get(column) for column in columns}
        rows.append({"run": path.parent.name, **record.get("parameters", {}), **about})
    found = pd.DataFrame(rows, columns=None if rows else ["run", *columns])
    return found[[c for c in found.columns if c not in columns] + columns]


def collect(folder: str | Path) -> pd.DataFrame:
    """Gathers the results of all finished runs in a sweep's folder into one tidy table.

    Writes ``results.csv`` and ``runs.csv`` there, and ``sweep_NOTEBOOK.json`` among the data
    set's results. Of runs by different versions of the notebook the newest version's count.

    Returns:
        The rows, with the column ``run`` and a column for each parameter of the grids that they
        do not tell already. Those that are not the notebook's defaults are the ``setting``.

    Raises:
        ValueError: A run's file of results cannot be read; names it.
    """
    folder, parts, datasets = Path(folder), [], []
    rows = runs(folder)
    results.write_csv(folder / "runs.csv", rows)
    done = rows[rows.state == "done"].sort_values("started")
    for run in sorted(done[done.code.isin(done.code.tail(1))].run):
        found, record = results.read(folder / run / "results"), read(folder / run)
        given = {n: v for n, v in record["parameters"].items() if n not in found.columns}
        setting = {n: v for n, v in record["setting"].items() if n not in TOLD}
        columns = {n: str(v) if isinstance(v, list) else v for n, v in given.items()}
        columns |= {"setting": name(setting) if setting else None, "run": run}
        parts.append(found.assign(**columns))
        datasets.append(record["parameters"].get("dataset"))
    none = pd.DataFrame(columns=[*results.COLUMNS, "run"])
    table = pd.concat(parts, ignore_index=True) if parts else none
    if len(table):
        results.write_csv(folder / "results.csv", table)
        about = {"sweep": paths.show(folder.absolute()), "runs": len(parts)}
        save_as = f"sweep_{folder.name}"
        results.save(save_as, table.drop(columns="run"), about, _only(datasets))
    return table


def run_one(run: Run, threads: int, data: str, directory: str) -> Values:
    """Runs a notebook and waits for it; called by the executor.

    Args:
        run: Run to make; its folder exists.
        threads: Number of threads that it may use.
        data: Folder of data sets on the machine that starts the sweep.
        directory: Working directory there, for relative paths among the parameters.

    Returns:
        The record, as in ``run.yaml``. A failure is recorded, not raised.

    Raises:
        FileNotFoundError: This machine does not see the run's folder.
    """
    host, since = socket.gethostname(), time.monotonic()
    if not run.folder.is_dir():
        needed = "the same files at the same paths as the machine that starts the sweep"
        raise FileNotFoundError(f"{host} does not see {run.folder}: workers need {needed}")
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    record = run.record | {"state": "running", "host": host, "threads": threads, "started": started}
    write(run.folder, record)
    encoders = _fresh(run)
    variables = os.environ | dict.fromkeys(THREADS, str(threads))
    variables |= {"SPDLIB_RUNS": str(run.folder), "SPDLIB_DATA": data}
    record["state"] = "done"
    with open(run.folder / LOG, "w", encoding="utf-8", errors="backslashreplace") as log:
        try:
            execution.execute(
                run.notebook, run.folder / run.notebook.name, run.extra | run.parameters, log,
                env=variables, cwd=directory,
            )  # fmt: skip
        except Exception as error:
            print(error, file=log)
            memory = "; perhaps for want of memory, see --memory" if "died" in str(error) else ""
            record |= {"state": "failed", "error": f"{error}"[:2000] + memory}
    for file in filter(Path.is_symlink, encoders.iterdir()):
        file.unlink()
    record["seconds"] = round(time.monotonic() - since, 1)
    write(run.folder, record)
    return record


def read(folder: Path) -> Values:
    """The record of a run's folder; empty if there is none, or none that can be read."""
    try:
        record = yaml.safe_load((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return record if isinstance(record, dict) else {}


def write(folder: Path, record: Values) -> None:
    """Puts a record into a run's folder."""
    with paths.replacing(folder / RECORD) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


def cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


@contextmanager
def _executor(on: Any, threads: int | None, memory: float) -> Iterator[tuple[Executor, int]]:
    """An executor that runs no more at once than fit into memory, and the threads of each run."""
    if isinstance(on, str):
        from distributed import Client

        with Client(on) as client, _executor(client, threads, memory) as found:
            yield found
    elif hasattr(on, "get_executor"):
        yield _dask(on, threads, memory)
    elif isinstance(on, Executor):
        yield on, threads or max(1, cores() // (getattr(on, "_max_workers", None) or 1))
    else:
        fitting = psutil.virtual_memory().available // memory if memory else on
        if min(on, fitting) < 1:
            wanted = f"{on} processes of {memory / 1e9:.1f} GB of memory"
            raise ValueError(f"{wanted}: {fitting:.0f} fit here")
        at_once = int(min(on, fitting))
        with ThreadPoolExecutor(at_once) as pool:  # a thread waits for each kernel
            yield pool, threads or max(1, cores() // at_once)


def _dask(client: Any, threads: int | None, memory: float) -> tuple[Executor, int]:
    client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS)
    rooms = pd.DataFrame.from_dict(client.run(_room), orient="index")
    shares = rooms.cores // rooms.groupby("host").slots.transform("sum")
    fitting = rooms.index[rooms.slots * memory <= rooms.memory].tolist()
    if not fitting:
        needed = f"{memory / 1e9:.1f} GB for each of its slots"
        hint = "start workers with --nthreads 1 and a --memory-limit above that"
        raise ValueError(f"memory: no worker has {needed}; {hint}")
    only = {"workers": fitting} if memory else {}
    return client.get_executor(pure=False, **only), threads or max(1, int(shares.min()))


def _room(dask_worker: Any) -> Values:
    """A Dask worker's host, cores, memory and slots; runs there."""
    limit = dask_worker.memory_manager.memory_limit or psutil.virtual_memory().total
    host = socket.gethostname()
    return {"host": host, "cores": cores(), "memory": limit, "slots": dask_worker.state.nthreads}


def _bytes(memory: float | str | None) -> int:
    try:
        return TypeAdapter(ByteSize).validate_python(memory or 0)
    except ValidationError:
        raise ValueError(f"memory: {memory!r} is not a size such as 6GB") from None


def _work(todo: list[Run], executor: Executor, threads: int) -> None:
    for run in todo:
        run.folder.mkdir(parents=True, exist_ok=True)
    shared, failed = (threads, str(paths.data().absolute()), os.getcwd()), 0
    with Bar(len(todo), todo[0].notebook.stem, "runs", seconds=0.1) as bar:
        futures = {executor.submit(run_one, run, *shared): run for run in todo}
        try:
            for future in as_completed(futures):
                if error := future.exception():  # the worker is lost, and left no record of an end
                    lost = {"state": "failed", "error": f"{type(error).__name__}: {error}"}
                    write(futures[future].folder, futures[future].record | lost)
                failed += bool(error) or future.result()["state"] != "done"
                bar.update(note=f"{failed} failed" if failed else "")
        except BaseException:
            running = [future for future in futures if not future.cancel()]
            while wait(running, 1).not_done:
                _end_kernels({str(run.folder) for run in todo})
            raise


def _end_kernels(folders: set[str]) -> None:
    """Ends the kernels of runs that this process started; their runs fail then."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.environ().get("SPDLIB_RUNS") in folders:
                process.kill()


def _fresh(run: Run) -> Path:
    """Clears a run's folder of an earlier try's results and links encoders there.

    Files are replaced when they are written, never changed, so what a run writes beside the
    links becomes a file of its own.
    """
    place = run.folder / "encoders"
    for folder in (run.folder / "results", place):
        shutil.rmtree(folder, ignore_errors=True)
    place.mkdir()
    for file in run.encoders.glob("*"):
        (place / file.name).symlink_to(file)
    return place


def _plain(value: Any) -> str:
    """Text of a value that stands for no other value; with a blank where there is no such text."""
    items = value if isinstance(value, list) and len(value) > 1 else [value]
    texts = [yaml.safe_dump(i, default_flow_style=True).removesuffix("\n...\n") for i in items]
    return "+".join(t if re.fullmatch(r"[\w.-]+", t, re.ASCII) else f"{t} " for t in texts)


def _only(datasets: Iterable[str | None]) -> str | None:
    """The one data set of several runs, if it is one."""
    different = set(datasets)
    return different.pop() if len(different) == 1 else None


def _report(rows: pd.DataFrame, where: Path) -> None:
    counts = rows.state.value_counts()
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for run in rows[rows.state != "done"].itertuples():
        print(f"  {run.run}: {run.error}\n      see {paths.show(where / run.run / LOG)}")
    if (where / "results.csv").is_file():
        print(f"results of all: {paths.show(where / 'results.csv')}")


def _values(name: str, text: str) -> Any:
    """A list of values where the text is one in brackets; otherwise the text, one value."""
    try:
        values = execution.parse(text, name)
    except ValueError:
        values = text
    return values if isinstance(values, list) else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spdlib.sweep", description=__doc__.splitlines()[0], epilog=(
            "A list gives the values of a parameter; a value that is a list itself stands in "
            "brackets: -p categories '[[mono], [mono, poly]]'. Text is taken as it stands; text "
            "in brackets is a list, so a folder called [a] is written '[\"[a]\"]'."
        ),
    )  # fmt: skip
    parser.add_argument("notebook", help="its path, or the beginning of its name: 03")
    parser.add_argument("-g", "--grid", metavar="FILE", help="YAML: lists of values by parameter")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUES"),
        help="a parameter's value, or list of values: -p seed '[0, 1, 2]'",
    )  # fmt: skip
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes at once, here")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a scheduler, e.g. tcp://HOST:8786")
    parser.add_argument("--threads", type=int, help="of each run; by default cores / runs at once")
    parser.add_argument("--memory", help="that a run may need, e.g. 6GB: limits the runs at once")
    parser.add_argument("-o", "--output", help="folder; by default runs/sweeps/NOTEBOOK")
    parser.add_argument("--again", action="store_true", help="run what is done, too")
    parser.add_argument("--list", action="store_true", help="say what would run, and end")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 if a run failed, 2 if none was started."""
    execution.print_any_text()
    given = _parser().parse_args(arguments)
    try:
        notebook = execution.find([given.notebook])[0]
        grid = load(given.grid) if given.grid else {}
        values = {name: _values(name, text) for name, text in given.p}
        grids: Any = grid if isinstance(grid, list) else [grid]
        grid = [{**part, **values} for part in grids]
        planned = plan(notebook, grid, given.output)
        if given.list:
            for run in planned:
                done = run.is_done and not given.again
                print(f"{'done' if done else 'to do':<6} {run.folder.name}")
            return 0
        on = given.dask or given.jobs
        options = {"folder": given.output, "threads": given.threads, "memory": given.memory}
        rows = sweep(notebook, grid, on, again=given.again, **options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    _report(rows, planned[0].folder.parent)
    return 0 if (rows.state == "done").all() else 1


if __name__ == "__main__":
    from spdlib import sweep as itself  # by this name a worker finds what it is sent

    sys.exit(itself.main())
