"""Notebook parameters: their text on a command line, and their check inside the notebook."""

from typing import Annotated, Literal

import pytest
from notebook_files import write_notebook
from pydantic import Field

from spdlib import execution
from spdlib.notebooks.parameters import Parameters, check
from spdlib.settings import Count


class Example(Parameters):
    epochs: Count
    share: Annotated[float, Field(ge=0, le=1)]
    category: Literal["mono", "poly"]


GOOD = {"epochs": 3, "share": 0.5, "category": "poly", "seed": 0, "interactive": True}
# What a kernel's namespace holds besides.
KERNEL = {"In": ["", "x = 1"], "Out": {}, "_": "", "__name__": "__main__", "check": check}


def test_good_parameters_come_back_as_given():
    p = check(Example, GOOD | KERNEL)
    assert p.model_dump() == GOOD


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epocs": 5}, r"epocs: unknown parameter; did you mean 'epochs'\?"),
        ({"interactive": "true"}, r"interactive: 'true' is text, not True or False"),
        ({"epochs": 2.0}, r"epochs: .*integer.*not 2\.0"),
        ({"epochs": 0}, r"epochs: .*greater than 0, not 0"),
        ({"share": "0.5"}, r"share: .*number.*not '0\.5'"),
        ({"category": "multi"}, r"category: .*'mono' or 'poly', not 'multi'"),
    ],
)
def test_a_bad_parameter_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        check(Example, GOOD | KERNEL | changed)


def test_all_problems_are_listed_together():
    with pytest.raises(ValueError) as caught:
        check(Example, GOOD | {"epocs": 5, "share": 2.0})
    assert "epocs" in str(caught.value) and "share" in str(caught.value)


DECLARED = """\
dataset: str = "elpv"  # a name, or a folder; e.g. x=1
weights: str = None
folder: str | None = None
size: int = 160
eta: float | None = None
interactive: bool = True
categories: list = ["mono", "poly"]  # [not this]
shots: list = [1, 2]
others: list[str] = None
stages: list[list[int]] = [[1, 2], [3]]
kind: Literal["a", "b"] = "a"
guess = None
"""


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook {x}")
    return execution.declared(write_notebook(folder / "n.ipynb", parameters=DECLARED))


TEXTS = ["batch #2", "lot: 7", "[a]", "2024", "no", "@home", "2024-01-31", "{a}", "a: b #c", "null"]


@pytest.mark.parametrize("text", [*TEXTS, "'q'", "1e3", "", "b\udcfc"])
def test_text_is_text(text, known):
    assert execution.fit(known, {"dataset": text}) == {"dataset": text}
    assert execution.fit(known, {"weights": text}) == {"weights": None if text == "null" else text}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("folder", "None", None),
        ("folder", "/a b", "/a b"),
        ("size", "010", 10),
        ("eta", "1e-3", 0.001),
        ("eta", "null", None),
        ("interactive", "yes", True),
        ("interactive", "False", False),
        ("categories", "[01, 02]", ["01", "02"]),
        ("categories", "[no, 2024-01-31, 'a, b']", ["no", "2024-01-31", "a, b"]),
        ("categories", "null", None),
        ("shots", "[01, 2]", [1, 2]),
        ("others", "[1]", ["1"]),
        ("stages", "[[1], [2, 3]]", [[1], [2, 3]]),
        ("kind", "b", "b"),
        ("guess", "[1, x]", [1, "x"]),
    ],
)
def test_text_is_read_by_the_declared_type(name, text, value, known):
    read = execution.fit(known, {name: text})[name]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("size", "[1", r"size: .*integer.*, not '\[1'"),
        ("size", "2.5", "size: .*integer"),
        ("size", "null", "size: .*integer"),
        ("eta", "much", "eta: .*number"),
        ("interactive", "maybe", "interactive: .*boolean.*, not 'maybe'"),
        (
            "categories",
            "mono",
            r"categories: .*valid list, not 'mono'; a list is written '\[mono\]'",
        ),
        ("categories", "[mono", "categories: not YAML"),
        ("shots", "[a]", "shots: .*integer.*, not 'a'"),
        ("dataset", 5, "dataset: .*string, not 5"),
        ("datset", "x", "datset: unknown parameter; did you mean 'dataset'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(name, text, message, known):
    with pytest.raises(ValueError, match=message):
        execution.fit(known, {name: text})


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "bad.ipynb").write_text("[1]")
    with pytest.raises(ValueError, match=r"bad\.ipynb is not a notebook"):
        execution.declared(tmp_path / "bad.ipynb")
    with pytest.raises(FileNotFoundError, match=r"no notebook at .*none\.ipynb"):
        execution.declared(tmp_path / "none.ipynb")
    with pytest.raises(ValueError, match="none of its cells is tagged 'parameters'"):
        execution.declared(write_notebook(tmp_path / "n.ipynb", "x = 1"))
