"""Checked settings: the types that settings share, and errors that name what does not fit."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from spdlib.architectures import known

Count = Annotated[int, Field(gt=0)]
ImageSize = Annotated[int, Field(ge=32, multiple_of=32)]
EncoderName = Annotated[str, AfterValidator(known)]


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Text of what does not fit, one line for each parameter, naming it."""
    return "\n  ".join(_explain(problem, model) for problem in error.errors())


def unknown(name: str, known: Iterable[str]) -> str:
    """Message that a parameter is not known, with the one that may be meant.

    >>> unknown("epocs", ["epochs", "seed"])
    "epocs: unknown parameter; did you mean 'epochs'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"{name}: unknown parameter; {hint}"


def _explain(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    value = problem["input"]
    if not name:  # about several of them
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return unknown(name, model.model_fields)
    if problem["type"] == "missing":
        return f"{name}: missing"
    if problem["type"] == "bool_type" and isinstance(value, str):
        return f"{name}: {value!r} is text, not True or False; with papermill: -p {name} True"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {message[0].lower() + message[1:]}, not {value!r}"
