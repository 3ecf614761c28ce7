"""The house rules of notebooks, held against the committed files."""

import ast
import itertools
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from spdlib import execution, paths

ALL = execution.find()
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:home|root|Users|tmp|work|var|opt|usr|mnt)/\w|[A-Z]:\\\\|site-packages"
)


@pytest.fixture(params=ALL, ids=[path.stem for path in ALL])
def path(request) -> Path:
    return request.param


@pytest.fixture
def nb(path):
    return nbformat.read(path, as_version=4)


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tagged_parameters(nb):
    return [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])]


def outputs_as_text(nb):
    for cell in code(nb):
        for output in cell.outputs:
            yield output.get("text", "")
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield data


def test_the_collection_is_there():
    assert [path.stem[:2] for path in ALL] == [f"{n:02d}" for n in range(1, len(ALL) + 1)]
    assert len(ALL) >= 5


def test_one_title_and_no_skipped_heading(nb):
    assert nb.cells[0].cell_type == "markdown" and nb.cells[0].source.startswith("# ")
    headings = [
        len(match[1])
        for cell in nb.cells
        if cell.cell_type == "markdown"
        for match in re.finditer(r"^(#+) ", re.sub(r"```.*?```", "", cell.source, flags=re.S), re.M)
    ]
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))


def test_parameters_are_annotated_commented_literals_and_checked_next(nb):
    (cell,) = tagged_parameters(nb)
    assert cell is code(nb)[0]
    lines = cell.source.splitlines()
    names = set()
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        ast.literal_eval(statement.value)
        assert "#" in lines[statement.end_lineno - 1], ast.unparse(statement)
        names.add(statement.target.id)
    assert {"seed", "interactive"} <= names
    assert "check(" in code(nb)[1].source and "globals()" in code(nb)[1].source


def test_prose_leads_and_cells_are_short(nb):
    prose = sum(cell.cell_type == "markdown" for cell in nb.cells)
    lines = [len(cell.source.splitlines()) for cell in code(nb)]
    assert prose >= 0.7 * len(lines)
    assert statistics.median(lines) <= 10
    assert max(lines) <= 40


def test_no_definitions_installs_or_absolute_paths(nb):
    for cell in code(nb):
        assert not re.search(r"^\s*[!%]|pip install", cell.source, re.M), cell.source
        tree = ast.parse(cell.source)
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        assert not [node.name for node in ast.walk(tree) if isinstance(node, kinds)]
        assert not MACHINE_PATHS.search(cell.source), cell.source


def test_outputs_are_of_one_clean_run_of_this_code(path, nb):
    assert nb.metadata["spdlib"]["code_sha256"] == execution.digest(nb), "run and publish it again"
    assert [cell.execution_count for cell in code(nb)] == list(range(1, len(code(nb)) + 1))
    assert execution.errors(nb) == []
    assert "widgets" not in nb.metadata and "papermill" not in nb.metadata
    assert not any("papermill" in cell.metadata for cell in nb.cells)
    for text in outputs_as_text(nb):
        assert not MACHINE_PATHS.search(text), text[:300]
        assert str(paths.root()) not in text and str(Path.home()) not in text
    assert path.stat().st_size < 1.5e6


def test_pictures_are_in_the_published_outputs(nb):
    pictures = [o for cell in code(nb) for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
