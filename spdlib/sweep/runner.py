"""One run of a sweep: a notebook in a folder and a process of its own.

So a run that crashes or runs out of memory takes nothing with it, and its threads and folders
are set without touching anybody else's. To the notebook the folder *is* ``runs/``, with the
encoders of ``runs/encoders`` linked into it: it reads those and writes over nobody else's.

    python -m spdlib.sweep.runner FOLDER    # what a sweep calls; FOLDER/run.yaml says what to run
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml

from spdlib import paths

RECORD, LOG = "run.yaml", "log.txt"
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
PROCESSES: set[subprocess.Popen] = set()  # that this process waits for


@dataclass(frozen=True)
class Run:
    """One notebook with one set of parameters, in one folder.

    Attributes:
        notebook: What is run.
        parameters: As the grid gives them.
        folder: Where everything goes that the run writes.
        code: Digest of the notebook's code, see :func:`spdlib.notebooks.digest`.
        extra: Parameters that are no part of the grid: explorers off.
        departs: The parameters that are not the notebook's defaults.
    """

    notebook: Path
    parameters: dict[str, Any]
    folder: Path
    code: str
    extra: dict[str, Any]
    departs: list[str]

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.yaml`` says; empty if there is none, or none that can be read."""
        return read(self.folder)

    @property
    def is_done(self) -> bool:
        """Whether these parameters have been run to the end, by the code as it is now."""
        record, executed = self.record, self.folder / self.notebook.name
        key = ("done", self.parameters, self.code)
        found = tuple(record.get(name) for name in ("state", "parameters", "code"))
        return found == key and executed.is_file()


def run_one(run: Run, threads: int, project: dict[str, str]) -> dict[str, Any]:
    """Runs a notebook in a process of its own and waits for it; called by the executor.

    Args:
        run: What to run; its folder exists.
        threads: It may use.
        project: Where the machine that starts the sweep has ``data`` and ``encoders``, and its
            working directory ``cwd``, for relative paths among the parameters.

    Returns:
        The record, as in ``run.yaml``. A failure is recorded, not raised.

    Raises:
        FileNotFoundError: This machine does not see the run's folder.
    """
    if not run.folder.is_dir():
        raise FileNotFoundError(
            f"{socket.gethostname()} does not see {run.folder}: workers need the same files at "
            "the same paths as the machine that starts the sweep"
        )
    record = {
        "state": "running",
        "notebook": str(run.notebook),
        "parameters": run.parameters,
        "extra": run.extra,
        "departs": run.departs,
        "code": run.code,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "worker": os.getpid(),
        "threads": threads,
    }
    write(run.folder, record)
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    environment |= {"SPDLIB_RUNS": str(run.folder), "SPDLIB_DATA": project["data"]}
    started = time.monotonic()
    shutil.rmtree(run.folder / "results", ignore_errors=True)  # of an earlier try
    with (
        _linked(Path(project["encoders"]), run.folder / "encoders"),
        open(run.folder / LOG, "w", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", "spdlib.sweep.runner", str(run.folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=project["cwd"],
        ) as process,
    ):  # fmt: skip
        PROCESSES.add(process)
        code = process.wait()
        PROCESSES.discard(process)
    record |= read(run.folder)
    if record["state"] == "running":
        record |= {"state": "failed", "error": f"its process ended with code {code}"}
        if code in (-9, 137):
            record["error"] = "its process was killed, perhaps for want of memory: see --memory"
    record["seconds"] = round(time.monotonic() - started, 1)
    write(run.folder, record)
    return record


def one(folder: Path) -> int:
    """The process of a run: executes what ``run.yaml`` says; returns 0 if all went well."""
    from spdlib import notebooks  # here, so that workers start without what notebooks need

    record = read(folder)
    _end_with(record["worker"])
    notebook = Path(record["notebook"])
    output, error = folder / notebook.name, None
    parameters = record["parameters"] | record["extra"]
    print(f"{record['started']}  {notebook.name} on {record['host']}, {record['threads']} threads")
    print(f"parameters: {parameters}\n", flush=True)
    try:
        notebooks.execute(notebook, output, parameters)
    except KeyboardInterrupt:
        error = "interrupted"
    except Exception as problem:  # whatever it is, it belongs to this run
        error = notebooks.COLOUR_CODES.sub("", f"{problem}").strip() or type(problem).__name__
        if "Kernel died" in error:
            error += ": perhaps for want of memory, see --memory"
    print(_printed(output))
    record |= {"state": "failed" if error else "done", "peak_gb": _peak()}
    if error:
        record["error"] = error
    write(folder, record)
    return 1 if error else 0


def read(folder: Path) -> dict[str, Any]:
    """The record of a run's folder; empty if there is none, or none that can be read."""
    try:
        record = yaml.safe_load((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return record if isinstance(record, dict) else {}


def write(folder: Path, record: dict[str, Any]) -> None:
    """Puts a record into a run's folder."""
    with paths.replacing(folder / RECORD) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


@contextmanager
def _linked(source: Path, target: Path) -> Iterator[None]:
    """The encoders of ``source`` in ``target``, too, while the block runs.

    Files are replaced when they are written, never changed, so what the block writes becomes a
    file of its own, and only what it left alone is taken away again.
    """
    target.mkdir(exist_ok=True)
    files = [file for file in source.glob("*") if file.is_file()] if source.is_dir() else []
    for file in files:
        (target / file.name).unlink(missing_ok=True)
        try:
            os.link(file, target / file.name)
        except OSError:  # on another disk
            os.symlink(file, target / file.name)
    try:
        yield
    finally:
        for file in files:
            with suppress(OSError):
                if os.path.samefile(file, target / file.name):
                    (target / file.name).unlink()
        with suppress(OSError):
            target.rmdir()  # if nothing is left


def _end_with(worker: int) -> None:
    """Ends this process, and the kernel it started, as soon as the worker is gone.

    A killed worker takes nothing with it by itself; what it ran would go on beside its repetition.
    """

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(worker).wait()
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _peak() -> float | None:
    """Gigabytes that the kernel took at most, where the system tells."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9, 3)


def _printed(executed: Path) -> str:
    """What a notebook's cells printed, and its error, for the log."""
    import nbformat

    from spdlib.notebooks import COLOUR_CODES

    if not executed.is_file():
        return ""
    parts = []
    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", ()):
            parts.append(output.get("text", "") + "\n".join(output.get("traceback", ())))
    return COLOUR_CODES.sub("", "\n".join(part for part in parts if part))


if __name__ == "__main__":
    sys.exit(one(Path(sys.argv[1])))
