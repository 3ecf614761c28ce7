"""Paths of the project: its root, its data and what the notebooks write.

Paths are resolved here, from the project's root, because the working directory differs:
JupyterLab starts in the notebook's folder, papermill in the caller's.
"""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT = "elpv"  # the data set whose runs lie in runs/ itself
TAKEN = ("encoders", "pretraining", "results", "sweeps")  # folders of runs/ that are no data sets


def root() -> Path:
    """The project's root: the folder that holds ``notebooks/`` beside ``spdlib/``.

    With spdlib installed as a plain package there is no such folder; then it is the current
    directory.
    """
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def data() -> Path:
    """Folder of downloaded data sets (``data/``, or the variable ``SPDLIB_DATA``)."""
    return Path(os.environ.get("SPDLIB_DATA") or root() / "data")


def dataset_name(dataset: str | Path) -> str:
    """Name of a data set in results, provenance and folders: a known name, or its folder's own.

    It is text that every file and figure can hold: bytes that are no UTF-8 are written out.

    >>> dataset_name("elpv"), dataset_name("path/to/parts/"), dataset_name(os.fsdecode(b"m\\xfc"))
    ('elpv', 'parts', 'm\\\\xfc')
    """
    name = Path(dataset).expanduser().resolve().name or "root"
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def runs(dataset: str | Path | None = None) -> Path:
    """Folder of everything that notebooks write for a data set.

    The variable ``SPDLIB_RUNS``, if set, is that folder, whatever the data set. Otherwise it is
    ``runs/`` for the default data set (ELPV, or None) and ``runs/NAME/`` for any other.
    """
    if given := os.environ.get("SPDLIB_RUNS"):
        return Path(given)
    name = dataset_name(dataset or DEFAULT)
    if name == DEFAULT:
        return root() / "runs"
    return root() / "runs" / (f"{name}_data" if name in TAKEN else name)


def encoders(dataset: str | Path | None = None) -> Path:
    """Folder of the encoders pretrained on a data set, ``encoders`` in its :func:`runs`."""
    return runs(dataset) / "encoders"


def results(dataset: str | Path | None = None) -> Path:
    """Folder of the results measured on a data set, ``results`` in its :func:`runs`."""
    return runs(dataset) / "results"


def show(path: str | Path) -> str:
    """A path as a reader should see it: relative to the runs or the project when inside them.

    >>> show(runs() / "results" / "padim.json")
    'runs/results/padim.json'
    """
    path = Path(path)
    for base, label in ((runs(), "runs"), (root(), "")):
        if path.is_absolute() and path.is_relative_to(base):
            return (Path(label) / path.relative_to(base)).as_posix()
    return path.as_posix()


def need(path: str | Path, made_by: str) -> Path:
    """Returns ``path`` if it is there; otherwise says in one line what makes it.

    Args:
        path: A file or folder that an earlier step writes.
        made_by: Name of what writes it, e.g. ``"notebook 02_spd_pretraining"``.

    Raises:
        FileNotFoundError: The path does not exist; the message names ``made_by``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{show(path)} is not there yet: run {made_by} first")
    return path


def need_room(folder: str | Path, size: int) -> None:
    """Sees that the disk of a folder has ``size`` bytes free.

    Raises:
        OSError: It has less.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"{show(folder)}: {size / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free "
            "on its disk"
        )


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path near ``path`` that takes its place when the block ends well.

    A reader, or a run that is killed half-way, never sees half a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_beside(path), dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        yield temporary
        os.replace(temporary, path)


def clear(path: str | Path) -> None:
    """Removes what processes killed within :func:`replacing` ``path`` left beside it."""
    path = Path(path)
    for folder in path.parent.glob(glob.escape(_beside(path)) + "*"):
        shutil.rmtree(folder)


def _beside(path: Path) -> str:
    """How the names of the temporary folders of a path begin."""
    return f".{path.name[:40]}."


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary folder near ``folder`` that takes its place when the block ends well.

    Raises:
        OSError: ``folder`` holds something.
    """
    if Path(folder).exists():
        Path(folder).rmdir()
    with replacing(folder) as temporary:
        temporary.mkdir()
        yield temporary
