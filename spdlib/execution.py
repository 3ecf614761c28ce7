"""Notebooks as programs: what parameters they declare, executing them, what failed in them."""

import ast
import hashlib
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from queue import Empty
from types import GenericAlias
from typing import Any, TextIO

import nbformat
import yaml
from nbformat import NotebookNode
from pydantic import TypeAdapter, ValidationError

from spdlib import paths
from spdlib.settings import unknown

Values = dict[str, Any]

# nbconvert's page, with the pictures' alt texts that it leaves out.
TEMPLATE = """\
{%- extends 'index.html.j2' -%}
{%- block data_png scoped -%}
{%- set alt = (output | get_metadata('alt', 'image/png')) or 'a picture' -%}
{{ super() | replace('<img ', '<img alt="' ~ (alt | escape_html) ~ '" ', 1) }}
{%- endblock data_png -%}
"""
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
COLOUR_CODES = re.compile(r"\x1b\[[0-9;]*m")  # in the messages of coloured tracebacks
SCALARS = (bool, int, float, str)
# papermill reads neither `str | None` nor a comment with an equals sign.
ANNOTATION = re.compile(r"^(\w+\s*:)([^=#\n]*)", re.M)
SAYS_NONE = re.compile(r"^(\w+)\s*:[^#\n]*#.*\bNone\b", re.M)  # in a comment
COMMENT = re.compile(r"""^((?:[^#'"\n]|"[^"\n]*"|'[^'\n]*')*)#.*$""", re.M)


def find(names: list[str] | None = None) -> list[Path]:
    """The project's notebooks in order, or those whose names begin as given (``"03"``).

    A name that ends in ``.ipynb`` is a file anywhere.

    Raises:
        FileNotFoundError: No notebook begins like one of the names.
    """
    home = paths.root() / "notebooks"
    known = sorted(home.glob("[0-9][0-9]_*.ipynb"))
    chosen = []
    for name in names or [""]:
        found = [path for path in known if path.stem.startswith(name)]
        if name.endswith(".ipynb"):
            places = [folder / name for folder in (Path.cwd(), paths.root(), home)]
            found = [path for path in places if path.is_file()][:1]
        if not found:
            there = ", ".join(one.stem for one in known) or "none here: work in a checkout"
            raise FileNotFoundError(f"no notebook {name!r}; there are {there}")
        chosen += found
    return sorted(set(chosen), key=lambda path: path.name)


@dataclass(frozen=True)
class Parameter:
    """A parameter as its notebook declares it.

    Attributes:
        name: Name of the parameter.
        kind: Type of its value where it is not None; Any where it is not known.
        is_optional: Whether it may be None.
        default: The notebook's own value; None also where that is no literal.
    """

    name: str
    kind: Any
    is_optional: bool
    default: Any

    def read(self, value: Any) -> Any:
        """A value as the notebook wants it, from a value or from text.

        Text is read by the declared type: where that is ``str`` it is the value as it stands.
        A list is written as in YAML; its items are again read by their type.

        Raises:
            ValueError: It is not of that type; the message names the parameter.

        >>> Parameter("dataset", str, False, "elpv").read("batch #2")
        'batch #2'
        >>> Parameter("categories", list[str], True, None).read("[01, 02]")
        ['01', '02']
        >>> Parameter("interactive", bool, False, True).read("no")
        False
        """
        if self.is_optional and value in (None, "null", "None"):
            return None
        if isinstance(value, str) and self.kind not in SCALARS:
            loader = yaml.SafeLoader if self.kind is Any else yaml.BaseLoader
            value = parse(value, self.name, loader)
        try:
            return TypeAdapter(self.kind).validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]
        form = f"; a list is written '[{value}]'" if problem["type"] == "list_type" else ""
        message = problem["msg"][0].lower() + problem["msg"][1:]
        raise ValueError(f"{self.name}: {message}, not {problem['input']!r}{form}")


def declared(notebook: str | Path) -> dict[str, Parameter]:
    """The parameters of a notebook, by name, as its ``parameters`` cell declares them.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: It is not a notebook, or none of its cells is tagged ``parameters``.
    """
    import papermill

    nb = read(notebook)
    nb.cells = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", ())]
    if not nb.cells:
        raise ValueError(f"{paths.show(notebook)}: none of its cells is tagged 'parameters'")
    source = nb.cells[0].source
    nb.cells[0].source = ANNOTATION.sub(
        lambda match: match[1] + re.sub(r"[^\w\[\]\s]", ",", match[2]), COMMENT.sub(r"\1", source)
    )
    says_none = SAYS_NONE.findall(source)
    found = papermill.inspect_notebook(nb).values()
    return {one["name"]: _parameter(one, one["name"] in says_none) for one in found}


def fit(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> Values:
    """Given values, or their text, as a notebook's parameters.

    Raises:
        ValueError: A name is unknown or a value does not fit; one line each.
    """
    values, problems = {}, []
    for name, value in given.items():
        try:
            if name not in known:
                raise ValueError(unknown(name, known))
            values[name] = known[name].read(value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n  ".join(problems))
    return values


def parse(text: str, name: str, loader: type = yaml.BaseLoader) -> Any:
    """A piece of YAML whose numbers, dates and words stay the text they are.

    Args:
        text: The YAML.
        name: Name of what it is, for the error.
        loader: YAML's; the safe one makes numbers and dates of text.

    Raises:
        ValueError: It is not YAML.

    >>> parse("{seed: [01, 1e-3], dataset: no}", "grid")
    {'seed': ['01', '1e-3'], 'dataset': 'no'}
    """
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name}: not YAML, {text[:80]!r}: {reason}") from None


def read(notebook: str | Path) -> NotebookNode:
    """A notebook's content.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: It is not a notebook.
    """
    if not Path(notebook).is_file():
        raise FileNotFoundError(f"no notebook at {paths.show(notebook)}")
    try:
        return nbformat.read(notebook, as_version=4)
    except Exception as error:  # of JSON, of its schema, of what lacks there: nbformat has many
        raise ValueError(f"{paths.show(notebook)} is not a notebook: {str(error)[:80]}") from None


def execute(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    log: TextIO | None = None,
    **kernel: Any,
) -> NotebookNode:
    """Executes a notebook through papermill and writes it, cleaned, and an HTML copy.

    Args:
        notebook: Path of the notebook to run.
        output: Path of the executed notebook; the HTML copy goes beside it. What ran
            before an error is there to read, too.
        parameters: Values for the ``parameters`` cell.
        log: File for what cells print, while they run.
        **kernel: Options of the kernel's process: ``env``, its variables; ``cwd``, its folder.

    Returns:
        The executed notebook.

    Raises:
        RuntimeError: A cell failed, or an explorer did; the message is the error's own.
    """
    import papermill
    from papermill.parameterize import parameterize_notebook

    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    nb = papermill.iorw.load_notebook_node(str(notebook))
    if parameters:
        nb = parameterize_notebook(nb, dict(parameters))
        # Their text may hold what is no UTF-8, and so cannot be written; the cell escapes it.
        nb.metadata.papermill["parameters"] = {}
    nbformat.write(nb, output)
    path = re.sub(r"([{}])", r"\1\1", str(output))  # papermill takes paths for templates
    with suppress(papermill.PapermillExecutionError):  # the file holds it, too
        papermill.execute_notebook(
            path, path, progress_bar=False, stdout_file=log, stderr_file=log,
            kernel_manager_class=_patient_manager(kernel),
            # A kernel warns that it talks over TCP, which it does within this machine, and calls
            # the interrupt with which it is ended an error.
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )  # fmt: skip
    nb = nbformat.read(output, as_version=4)
    problems = errors(nb)
    with paths.replacing(output) as temporary:
        nbformat.write(clean(nb), temporary)
    with paths.replacing(output.with_suffix(".html")) as temporary:
        temporary.write_text(_html(nb, output.stem), encoding="utf-8")
    if problems:
        raise RuntimeError(COLOUR_CODES.sub("", "; ".join(problems)))
    return nb


def _patient_manager(options: Values) -> type:
    """A manager of kernels that start with some options, and whose replies are looked for.

    A widget's message that is sent while a reply is waited for can swallow the signal that the
    reply is there; nbclient then waits for ever (jupyter/nbclient, issue 312). This one looks
    for a reply every second.
    """
    from jupyter_client.manager import AsyncKernelManager

    class Patient(AsyncKernelManager):
        # Its types say None: jupyter_client makes it from a function that waits for this one.
        async def start_kernel(self, **given: Any) -> Any:  # type: ignore[override]
            return await super().start_kernel(**given | options)

        def client(self, **given: Any) -> Any:
            client = super().client(**given)
            wait = client.shell_channel.get_msg

            async def get_msg(timeout: float | None = None) -> Any:
                while timeout is None:
                    with suppress(Empty):
                        return await wait(timeout=1)
                return await wait(timeout=timeout)

            client.shell_channel.get_msg = get_msg
            return client

    return Patient


def errors(nb: NotebookNode) -> list[str]:
    """Errors of an executed notebook, also those that ipywidgets swallowed.

    An exception inside a widget's callback never reaches a cell's outputs: it stays in the
    state of an ``Output`` widget, where neither papermill nor a reader of cells sees it.
    """
    outputs = [(f"cell {c.execution_count}", o) for c in nb.cells for o in c.get("outputs", ())]
    widgets = nb.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for widget in widgets.values():
        outputs += [("a widget", o) for o in widget.get("state", {}).get("outputs", ())]
    return [
        f"{where}: {output.get('ename')}: {output.get('evalue')}"
        for where, output in outputs
        if isinstance(output, dict) and output.get("output_type") == "error"
    ]


def clean(nb: NotebookNode) -> NotebookNode:
    """Removes, in place, what a reader of the file cannot use: widget and papermill metadata.

    A widget's view is of no use without its kernel; its text stays in its place. What the kernel
    says of its language stays whole: JupyterLab would add it as soon as the notebook is opened.
    """
    kept = {"kernelspec", "language_info", "spdlib"}
    nb.metadata = NotebookNode({k: v for k, v in nb.metadata.items() if k in kept})
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


def print_any_text() -> None:
    """Makes names whose bytes are no UTF-8 printable: they are written as ``\\udcfc``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # or what somebody put there
            stream.reconfigure(errors="backslashreplace")


def _parameter(found: Mapping[str, str], says_none: bool) -> Parameter:
    """A parameter as papermill finds it: texts of its annotation and of its default."""
    words, default = re.findall(r"\w+", found["inferred_type_name"]), None
    with suppress(ValueError, SyntaxError):  # an expression: only the notebook knows its value
        default = ast.literal_eval(found["default"])
    is_list = "list" in words or isinstance(default, list)
    item = default[0] if is_list and default else default
    kinds = [kind for kind in SCALARS if kind.__name__ in words]
    kinds = kinds or [kind for kind in SCALARS if type(item) is kind]
    kind: Any = kinds[0] if len(kinds) == 1 else Any
    if is_list and not kinds:
        kind = str  # `list = None` says no more; names are the most common
    for _ in range(max(words.count("list"), is_list) if kind is not Any else 0):
        kind = GenericAlias(list, kind)
    is_optional = is_list or says_none or found["default"] == "None" or "None" in words
    return Parameter(found["name"], kind, is_optional or "Optional" in words, default)


def _html(nb: NotebookNode, title: str) -> str:
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(raw_template=TEMPLATE)
    return exporter.from_notebook_node(nb, {"metadata": {"name": title}})[0]
