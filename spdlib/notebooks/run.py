"""Running the notebooks: in order, checked for hidden errors, with clean outputs to publish.

    python -m spdlib.notebooks run [NAME ...] [-p NAME VALUE ...]
    python -m spdlib.notebooks publish

``run`` executes notebooks through papermill into ``runs/``, each with an HTML copy.
``publish`` puts the outputs of such runs into ``notebooks/``, for readers on the web.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from spdlib import paths

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")  # in the messages of coloured tracebacks
# Kept to what changes results; the rest is in environment.yml.
PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "lightly", "numpy", "pandas")


def find(names: list[str] | None = None) -> list[Path]:
    """The project's notebooks in order, or those whose names begin as given (``"03"``).

    Raises:
        FileNotFoundError: No notebook begins like one of the names.
    """
    all_paths = sorted((paths.root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return all_paths
    chosen = [p for p in all_paths if any(p.stem.startswith(Path(n).stem) for n in names)]
    for name in names:
        if not any(path.stem.startswith(Path(name).stem) for path in chosen):
            known = ", ".join(path.stem for path in all_paths)
            raise FileNotFoundError(f"no notebook {name!r}; there are {known}")
    return chosen


def execute(notebook: Path, output: Path, parameters: dict[str, Any] | None = None) -> NotebookNode:
    """Executes a notebook through papermill and writes it, cleaned, and an HTML copy.

    Args:
        notebook: What to run.
        output: Where the executed notebook goes; the HTML copy goes beside it. What ran
            before an error is there to read, too.
        parameters: Values for the ``parameters`` cell.

    Returns:
        The executed notebook.

    Raises:
        RuntimeError: A cell failed, or an explorer did; the message is the error's own.
    """
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        nb = papermill.execute_notebook(
            notebook, output, parameters or {}, progress_bar=False, log_output=False,
            # A kernel warns that it talks over TCP; it does so within this machine.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )  # fmt: skip
        problems = errors(nb)
    except papermill.PapermillExecutionError as error:
        nb = nbformat.read(output, as_version=4)
        problems = [f"cell {error.exec_count}: {error.ename}: {error.evalue}"]
    clean(nb)
    with paths.replacing(output) as temporary:
        nbformat.write(nb, temporary)
    with paths.replacing(output.with_suffix(".html")) as temporary:
        temporary.write_text(_html(nb, output.stem), encoding="utf-8")
    if problems:
        raise RuntimeError("; ".join(problems))
    return nb


def errors(nb: NotebookNode) -> list[str]:
    """What failed in an executed notebook, also where ipywidgets swallowed it.

    An exception inside a widget's callback never reaches a cell's outputs: it stays in the
    state of an ``Output`` widget, where neither papermill nor a reader of cells sees it.
    """
    found = [
        f"cell {cell.execution_count}: {output.ename}: {output.evalue}"
        for cell in nb.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    ]
    widgets = nb.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    for widget in widgets.get("state", {}).values():
        for output in widget.get("state", {}).get("outputs", ()):
            if isinstance(output, dict) and output.get("output_type") == "error":
                found.append(f"a widget: {output.get('ename')}: {output.get('evalue')}")
    return found


def clean(nb: NotebookNode) -> NotebookNode:
    """Removes, in place, what a reader of the file cannot use: widget and papermill metadata.

    A widget's view is of no use without its kernel; its text stays in its place.
    """
    kept = {"kernelspec", "language_info", "spdlib"}
    nb.metadata = NotebookNode({k: v for k, v in nb.metadata.items() if k in kept})
    nb.metadata["language_info"] = {"name": "python"}
    nb.metadata["spdlib"] = {"code_sha256": digest(nb)}
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        for output in cell.get("outputs", ()):
            if WIDGET_VIEW in output.get("data", {}):
                output["data"] = {"text/plain": "[an explorer: open this notebook in JupyterLab]"}
    return nb


def digest(nb: NotebookNode) -> str:
    """SHA-256 of the code cells, to tell whether outputs were made from the code above them."""
    code = "\0".join(cell.source for cell in nb.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


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


def versions() -> None:
    """Prints the versions that made a notebook's results, in one line."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"python {python}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))


def _html(nb: NotebookNode, title: str) -> str:
    from nbconvert import HTMLExporter

    return HTMLExporter().from_notebook_node(nb, {"metadata": {"name": title}})[0]


def _run(names: list[str], parameters: dict[str, Any]) -> int:
    chosen = find(names)
    started = time.monotonic()
    for number, path in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {path.stem:<24}", end=" ", flush=True)
        since = time.monotonic()
        output = paths.runs() / path.name
        html = paths.show(output.with_suffix(".html"))
        try:
            execute(path, output, parameters)
        except RuntimeError as error:
            print(f"failed: {COLOUR_CODES.sub('', str(error))}\n      see {html}")
            return 1
        print(f"{time.monotonic() - since:5.0f} s   {html}")
    print(
        f"\nDone in {(time.monotonic() - started) / 60:.1f} min. Open {paths.show(paths.runs())}/"
    )
    print(f"  *.html and *.ipynb  the executed notebooks ({len(chosen)})")
    for folder, what in (("results", "measured numbers"), ("encoders", "pretrained weights")):
        if (paths.runs() / folder).is_dir():
            print(f"  {folder + '/':<19} {what} ({len(list((paths.runs() / folder).iterdir()))})")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m spdlib.notebooks", description=__doc__.split("\n")[0]
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="execute notebooks in order into runs/")
    run.add_argument("names", nargs="*", help="beginnings of names, e.g. 03 (default: all)")
    run.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a notebook parameter; the value is read as YAML",
    )  # fmt: skip
    publishing = verbs.add_parser("publish", help="put the runs' outputs into notebooks/")
    publishing.add_argument("names", nargs="*", help="beginnings of names (default: all)")
    given = parser.parse_args(arguments)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's needless warning
    try:
        if given.verb == "publish":
            for path in publish(given.names):
                print(f"published {paths.show(path)}")
            return 0
        return _run(given.names, {name: yaml.safe_load(value) for name, value in given.parameter})
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
