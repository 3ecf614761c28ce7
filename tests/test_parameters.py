"""The check of notebook parameters, as a notebook calls it."""

from typing import Literal

import pytest

from spdlib.notebooks.parameters import Parameters, check
from spdlib.settings import Count, Fraction


class Example(Parameters):
    epochs: Count
    share: Fraction
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
