"""Running the notebooks: in order, on any data set, and publishing their outputs.

    python -m spdlib.notebooks run [NAME ...] [-p NAME VALUE ...]
    python -m spdlib.notebooks run [NAME ...] --dataset PATH [--categories A B ...]
    python -m spdlib.notebooks publish

``run`` executes notebooks through papermill into ``runs/``, or, on a data set of one's own,
into ``runs/NAME/``; each with an HTML copy. It stops at the first that fails; what is written
by then stays. ``publish`` puts the outputs of runs into ``notebooks/``, for readers on the web.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat

from spdlib import execution, paths
from spdlib.execution import Values, digest, errors, find
from spdlib.settings import unknown

VALUES = """\
A value is read by the type that the notebook declares: text is taken as it stands, a list is
written like '[mono, poly]', None as null. Names of notebooks come first, or before --categories.
"""


def plan(names: list[str], given: Values) -> dict[Path, Values]:
    """The notebooks to run, with the given parameters that each declares.

    Args:
        names: Beginnings of their names; none means all.
        given: Values or their text by parameter; None is only for those that know the name.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: A parameter is declared by none of them, or a value does not fit.
    """
    known = {path: execution.declared(path) for path in find(names)}
    every = {name: None for parameters in known.values() for name in parameters}
    lost = [name for name, value in given.items() if value is not None and name not in every]
    if lost:
        raise ValueError("\n".join(unknown(name, every) for name in lost))
    return {
        path: execution.fit(parameters, {n: v for n, v in given.items() if n in parameters})
        for path, parameters in known.items()
    }


def run(notebooks: dict[Path, Values], folder: Path, verbose: bool = False) -> None:
    """Executes notebooks in order into a folder, and says how it goes.

    Args:
        notebooks: Parameters by the notebooks' paths.
        folder: Folder for the executed ones.
        verbose: Whether to show what their cells print.

    Raises:
        RuntimeError: One failed; none after it is started.
    """
    started = time.monotonic()
    for number, (path, parameters) in enumerate(notebooks.items(), 1):
        print(f"[{number}/{len(notebooks)}] {path.stem:<24}", end=" ", flush=True)
        since = time.monotonic()
        html = paths.show((folder / path.name).with_suffix(".html"))
        try:
            log = sys.stdout if verbose else None
            execution.execute(path, folder / path.name, parameters, log)
        except (RuntimeError, KeyError) as error:  # a KeyError: its kernel is not installed
            raise RuntimeError(f"failed: {error}\n      see {html}") from None
        print(f"{time.monotonic() - since:5.0f} s   {html}")
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} min. Open {paths.show(folder)}/")
    print(f"  *.html and *.ipynb  the executed notebooks ({len(notebooks)})")
    for name, content in (("results", "measured numbers"), ("encoders", "pretrained weights")):
        if (folder / name).is_dir():
            print(f"  {name + '/':<19} {content} ({len(list((folder / name).iterdir()))})")


def publish(names: list[str] | None = None) -> list[Path]:
    """Puts the outputs of the last ``run`` into ``notebooks/``.

    Raises:
        FileNotFoundError: A notebook has not been run.
        ValueError: A run used other code or parameters than the notebook has now, or failed.
    """
    chosen = find(names)
    runs = {path: paths.need(paths.runs() / path.name, "make run") for path in chosen}
    executed = {path: nbformat.read(run, as_version=4) for path, run in runs.items()}
    for path, nb in executed.items():
        if digest(nb) != digest(nbformat.read(path, as_version=4)):
            raise ValueError(f"{paths.show(runs[path])} ran other code or parameters: run it again")
        if errors(nb):
            raise ValueError(f"{paths.show(runs[path])}: {errors(nb)[0]}")
    for path, nb in executed.items():
        with paths.replacing(path) as temporary:
            nbformat.write(nb, temporary)
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spdlib.notebooks", description=__doc__.split("\n")[0]
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run", help="execute notebooks in order into runs/", epilog=VALUES)
    running.add_argument("names", nargs="*", help="beginnings of names, e.g. 03 (default: all)")
    running.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter, for the notebooks that have it",
    )  # fmt: skip
    running.add_argument(
        "--dataset", help="elpv, visa, mvtec or a folder of images, which is looked at first"
    )
    running.add_argument("--categories", nargs="+", metavar="NAME", help="of it; by default all")
    running.add_argument("-v", "--verbose", action="store_true", help="show what cells print")
    publishing = verbs.add_parser("publish", help="put the runs' outputs into notebooks/")
    publishing.add_argument("names", nargs="*", help="beginnings of names (default: all)")
    return parser


def _looked_at(dataset: str, categories: list[str] | None) -> str:
    """A data set that can be loaded, by its name or, for any working directory, its whole path."""
    from spdlib.datasets import load  # here: it takes seconds, and a sweep's runs do not need it
    from spdlib.datasets.registry import NAMES

    load(dataset, categories)
    folder = Path(dataset).expanduser()
    return dataset if dataset in NAMES or not folder.exists() else str(folder.resolve())


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's needless warning
    execution.print_any_text()
    asked = _parser().parse_args(arguments)
    try:
        if asked.verb == "publish":
            for path in publish(asked.names):
                print(f"published {paths.show(path)}")
            return 0
        given = dict(asked.parameter)
        if asked.dataset is not None or asked.categories is not None:
            given["categories"] = asked.categories
        if asked.dataset is not None:
            given["dataset"] = asked.dataset
            plan(asked.names, given)  # what is misspelt is said before anything is read
            given["dataset"] = _looked_at(asked.dataset, asked.categories)
        run(plan(asked.names, given), paths.runs(given.get("dataset")), asked.verbose)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is written by now stays", file=sys.stderr)
        return 130
    return 0
