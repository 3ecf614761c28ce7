"""Grids of a notebook's parameters: read, expanded, and checked against the notebook.

A grid gives each parameter a value or a list of values; its runs are all combinations. A list
of grids gives the runs of each. What a notebook declares and checks is read from its cells, so
nothing has to be listed twice, and a misspelt name or a wrong type is found before hours of work.
"""

import ast
import difflib
import hashlib
import importlib
import itertools
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from spdlib.settings import explain

Values = dict[str, Any]
Grid = Mapping[str, Any] | Sequence[Mapping[str, Any]]
LONGEST = 160  # characters of a run's name; longer ones end in a digest


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-3 as the number it is; plain PyYAML takes it for text."""


_EXPONENT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse(text: str) -> Any:
    """The value of a piece of YAML, as the command line and grid files hold it.

    >>> parse("[1e-3, 0.1]"), parse("poly"), parse("null")
    ([0.001, 0.1], 'poly', None)
    """
    return yaml.load(text, Loader=_Loader)


def load(path: str | Path) -> Grid:
    """A grid from a YAML file: parameters and their lists of values, or a list of such grids.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not YAML, or something else than grids.
    """
    try:
        grid = parse(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    _each(grid, str(path))
    return grid


def expand(grid: Grid) -> list[Values]:
    """The parameters of each run: all combinations, the last parameter changing fastest.

    Args:
        grid: Lists of values by parameter; what is no list is one value, and a value that is a
            list itself stands in a list: ``{"stages": [[1, 2], [3]]}``. Or a list of grids.

    Returns:
        Each run's parameters, none twice.

    Raises:
        ValueError: It is no grid, or a parameter has no values.

    >>> expand({"category": "poly", "seed": [0, 1]})
    [{'category': 'poly', 'seed': 0}, {'category': 'poly', 'seed': 1}]
    """
    runs: dict[str, Values] = {}
    for part in _each(grid, "grid"):
        lists = [value if isinstance(value, list) else [value] for value in part.values()]
        for name, values in zip(part, lists, strict=True):
            if not values:
                raise ValueError(f"grid: {name} has an empty list of values")
        for values in itertools.product(*lists):
            run = dict(zip(part, values, strict=True))
            runs.setdefault(_text(run), run)
    return list(runs.values())


@dataclass(frozen=True)
class Declared:
    """What a notebook says about its parameters.

    Attributes:
        defaults: Value by name; absent where it is no literal.
        annotations: Text of the annotation by name; empty where there is none.
        model: The pydantic model that the notebook checks them with, if it does.
    """

    defaults: Values
    annotations: dict[str, str]
    model: type[BaseModel] | None


def declared(notebook: str | Path) -> Declared:
    """Reads the ``parameters`` cell and, where the notebook calls it, the model of its check.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: It is not a notebook, or none of its cells is tagged ``parameters``.
    """
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"no notebook at {notebook}")
    try:
        nb = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook} is not a notebook: {str(error)[:80]}") from None
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", ())]
    if not tagged:
        raise ValueError(f"{notebook}: none of its cells is tagged 'parameters'")
    defaults, annotations = {}, {}
    for statement in ast.parse(tagged[0].source).body:
        if isinstance(statement, ast.AnnAssign | ast.Assign) and statement.value is not None:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            annotation = getattr(statement, "annotation", None)
            annotations[target.id] = ast.unparse(annotation) if annotation else ""
            with suppress(ValueError, TypeError):  # an expression: only the notebook knows it
                defaults[target.id] = ast.literal_eval(statement.value)
    return Declared(defaults, annotations, _model([cell.source for cell in code]))


def check(notebook: str | Path, runs: Iterable[Values]) -> None:
    """Holds the parameters of runs against the notebook's names, types and checks.

    Raises:
        ValueError: Something does not fit; the message has one line for each problem, and
            names the parameter.
    """
    known = declared(notebook)
    problems = dict.fromkeys(problem for run in runs for problem in _problems(known, run))
    if problems:
        raise ValueError(
            f"the grid does not fit {Path(notebook).name}:\n  " + "\n  ".join(problems)
        )


def name(run: Values, order: Iterable[str] = ()) -> str:
    """A folder's name for a run, from its parameters; different runs have different names.

    Args:
        run: Parameters.
        order: Names in the order in which they come; others follow, sorted.

    >>> name({"seed": 1, "category": "poly"}, order=["category", "seed"])
    'category=poly,seed=1'
    >>> name({})
    'defaults'
    """
    places = {parameter: place for place, parameter in enumerate(order)}
    names = sorted(run, key=lambda parameter: (places.get(parameter, len(places)), parameter))
    plain = ",".join(f"{n}={_plain(run[n])}" for n in names) or "defaults"
    safe = re.sub(r"[^\w.,=+-]", "_", plain, flags=re.ASCII)
    if safe == plain and len(safe) <= LONGEST and all(_is_faithful(v) for v in run.values()):
        return safe
    digest = hashlib.sha256(_text(run).encode()).hexdigest()[:8]
    return f"{safe[:LONGEST]}-{digest}"


def _each(grid: Any, where: str) -> list[Mapping[str, Any]]:
    parts = [grid] if isinstance(grid, Mapping) else grid
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise ValueError(f"{where}: a grid gives lists of values by parameter, not {grid!r}")
    for part in parts:
        if not (isinstance(part, Mapping) and all(isinstance(key, str) for key in part)):
            raise ValueError(f"{where}: a grid gives lists of values by parameter, not {part!r}")
    return list(parts)


def _text(run: Values) -> str:
    try:
        return json.dumps(run, sort_keys=True)
    except TypeError:
        raise ValueError(f"grid: numbers, text, lists or null are needed, not in {run}") from None


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_plain, value))
    return "null" if value is None else str(value)


def _is_faithful(value: Any) -> bool:
    """Whether the plain text of a value belongs to no other value: 1 does, the text '1' not."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"[\w.-]+", value, re.ASCII)) and parse(value) == value
    if isinstance(value, list):
        flat = not any(isinstance(one, list) for one in value)
        return flat and len(value) > 1 and all(map(_is_faithful, value))
    return not isinstance(value, dict)


def _problems(known: Declared, run: Values) -> list[str]:
    unknown = [parameter for parameter in run if parameter not in known.annotations]
    found = [f"{parameter}: {_unknown(parameter, known)}" for parameter in unknown]
    given = {name: value for name, value in run.items() if name not in unknown}
    if known.model is None:
        return found + [p for name in given for p in _type_problems(known, name, given[name])]
    try:
        known.model(**known.defaults | given)
    except ValidationError as error:
        # What is wrong without the grid is the notebook's affair; it says so when it runs.
        ours = [e for e in error.errors() if not e["loc"] or e["loc"][0] in given]
        found += explain(_Errors(ours), known.model).split("\n  ") if ours else []
    return found


def _unknown(parameter: str, known: Declared) -> str:
    close = difflib.get_close_matches(parameter, known.annotations, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known.annotations)}"
    return f"unknown parameter; {hint}"


def _type_problems(known: Declared, parameter: str, value: Any) -> list[str]:
    default = known.defaults.get(parameter)
    try:
        kind = eval(known.annotations[parameter], dict(vars(typing)))  # text that is run anyway
        adapter = TypeAdapter(kind, config=ConfigDict(strict=True))
    except (SyntaxError, NameError, AttributeError, TypeError, PydanticUserError):
        if default is None:
            return []
        kind = int | float if type(default) is int else type(default)
        adapter = TypeAdapter(kind, config=ConfigDict(strict=True))
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        return [f"{parameter}: {message[0].lower()}{message[1:]}, not {value!r}"]
    return []


@dataclass(frozen=True)
class _Errors:
    """Some of a validation's errors, in the shape that ``explain`` takes."""

    chosen: list[dict[str, Any]]

    def errors(self) -> list[dict[str, Any]]:
        return self.chosen


def _model(sources: list[str]) -> type[BaseModel] | None:
    """The model in a notebook's ``check(Model, globals())``, found through its imports."""
    imports: dict[str, tuple[str, str]] = {}
    for source in sources:
        try:
            tree = ast.parse(source)
        except SyntaxError:  # a cell with magics
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imports |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("check"):
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Name) and first.id in imports:
                    module, attribute = imports[first.id]
                    try:
                        model = getattr(importlib.import_module(module), attribute)
                    except (ImportError, AttributeError):
                        continue  # the notebook will say so itself
                    if isinstance(model, type) and issubclass(model, BaseModel):
                        return model
    return None
