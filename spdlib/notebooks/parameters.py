"""Parameters of the notebooks, checked before any work starts.

papermill injects the *text* ``'true'`` for ``-p flag true``, and a misspelt parameter only
warns: the defaults would be trained without a word. Each notebook therefore hands its
parameters to :func:`check` right after the ``parameters`` cell.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from spdlib.detectors import known as known_detector
from spdlib.pretraining.presets import MethodName, named
from spdlib.settings import Count, EncoderName, ImageSize, explain


def _once(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("each may be named once")
    return values


def _known(method: str) -> str:
    named(method)
    return method


def _with_maps(detectors: list[str]) -> list[str]:
    first, *_ = [known_detector(name) for name in detectors]
    if first.pooled:
        raise ValueError(f"the first is shown with its maps; {detectors[0]} has none")
    return detectors


Method = Annotated[str, AfterValidator(_known)]  # with or without SPD
Names = Annotated[list[str], Field(min_length=1), AfterValidator(_once)]
Several = Annotated[list[str], Field(min_length=2), AfterValidator(_once)]


class Parameters(BaseModel):
    """Base of the notebooks' parameters: no conversions, no unknown names, no changes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0)]
    interactive: bool


class ImageParameters(Parameters):
    """Base of the notebooks that look at images: which data set, and which of its categories."""

    dataset: Annotated[str, Field(min_length=1)]
    categories: Names | None


class SmoothBlendTour(ImageParameters):
    """Notebook 01."""

    images: Count
    draws: Annotated[int, Field(ge=10)]
    visible: Annotated[int, Field(ge=1, le=255)]
    size: ImageSize


class SpdPretraining(ImageParameters):
    """Notebook 02. What is None is left to the preset."""

    method: MethodName
    control: Method | None
    also: list[Method]
    preset: Literal["laptop", "paper"]
    encoder: EncoderName | None
    weights: Annotated[str, Field(min_length=1)] | None
    eta: Annotated[float, Field(gt=0)] | None
    epochs: Count | None
    batch_size: Annotated[int, Field(ge=2)] | None
    size: ImageSize | None
    train_images: Annotated[int, Field(ge=2)] | None
    test_images: Annotated[int, Field(ge=2)] | None
    collapse_epochs: Count


class PadimEvaluation(ImageParameters):
    """Notebook 03."""

    encoders: Names
    architecture: EncoderName
    detectors: Annotated[Names, AfterValidator(_with_maps)]
    size: ImageSize
    crop: bool | None
    n_features: Count | None
    train_images: Annotated[int, Field(ge=2)] | None
    test_images: Annotated[int, Field(ge=2)] | None
    repeats: Annotated[int, Field(ge=10)]


class AurocVsAupr(ImageParameters):
    """Notebook 04: the real detector of its last part."""

    encoder: EncoderName
    train_images: Annotated[int, Field(ge=2)]
    test_images: Annotated[int, Field(ge=2)]
    size: ImageSize
    repeats: Count


class GradcamAttention(ImageParameters):
    """Notebook 05."""

    encoders: Several
    architecture: EncoderName
    stage: Annotated[int, Field(ge=1, le=4)]
    method: Literal["gradcam", "hirescam", "layercam", "eigencam"]
    normal_images: Count
    test_images: Annotated[int, Field(ge=2)]
    size: ImageSize


class TwoClassTraining(ImageParameters):
    """Notebook 06. What is None is left to the preset."""

    preset: Literal["laptop", "paper"]
    only_held_out: bool
    encoders: Several | None
    architecture: EncoderName
    shots: Annotated[list[Count], Field(min_length=1), AfterValidator(_once)]
    draws: Annotated[int, Field(ge=2)]
    most_images: Annotated[int, Field(ge=2)] | None
    normal_images: Annotated[int, Field(ge=2)]
    feature_size: ImageSize
    size: ImageSize | None
    crop: bool | None
    freeze: bool | None
    iterations: Count | None
    repeats: Annotated[int, Field(ge=10)]


class PaperComparison(Parameters):
    """Notebook 07."""

    dataset: Annotated[str, Field(min_length=1)]
    table: Annotated[int, Field(ge=7, le=14)]
    results: str | None


P = TypeVar("P", bound=Parameters)


def check(model: type[P], namespace: dict[str, Any]) -> P:
    """Checks a notebook's parameters, which are the plain values in its namespace so far.

    Call it as ``check(Model, globals())`` in the cell after the ``parameters`` cell, before
    anything else is defined.

    Args:
        model: The notebook's parameter model.
        namespace: The notebook's ``globals()``.

    Returns:
        The checked parameters.

    Raises:
        ValueError: A parameter is unknown, missing, of the wrong type or out of range. The
            message has one line for each, and names it.
    """
    plain = (bool, int, float, str, list, dict, tuple, type(None))
    jupyter = {"In", "Out", "exit", "quit"}
    given: dict[str, Any] = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in jupyter and isinstance(value, plain)
    }
    try:
        return model(**given)
    except ValidationError as error:
        message = explain(error, model)
    raise ValueError("the notebook's parameters do not fit:\n  " + message)
