"""How to train on two classes: one checked set of settings, and two presets.

``paper`` holds what Zou et al. state (appendix C) and, where they are silent, a choice that is
marked as ours; ``laptop`` departs from it where two cores and minutes ask for it.
:func:`table` shows both, side by side.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spdlib.settings import Count, ImageSize, explain
from spdlib.twoclass.augmentation import Augment, Balance

Task = Literal["detection", "segmentation"]
TASKS: tuple[Task, ...] = ("detection", "segmentation")
SHOTS = (5, 10)  # the paper's numbers of labelled images of each class
Positive = Annotated[float, Field(gt=0)]

STATED = {  # what the paper says; the rest is ours
    "epochs": "the paper", "iterations": "the paper", "learning_rate": "the paper",
    "optimizer": "the paper, high-shot",
}  # fmt: skip
PAPER: dict[str, Any] = {
    "size": 224, "batch_size": 16, "optimizer": "sgd", "learning_rate": 1e-4,
    "augment": "shifts", "balance": "sampling", "decoder_width": 256,
}  # fmt: skip
LENGTH: dict[tuple[str, bool], dict[str, Any]] = {  # by task, and whether few-shot
    ("detection", False): {"epochs": 80},
    ("detection", True): {"iterations": 1000},
    ("segmentation", False): {"epochs": 80},
    ("segmentation", True): {"iterations": 500},
}
LAPTOP: dict[str, Any] = {"size": 96, "batch_size": 8, "optimizer": "adam", "decoder_width": 64}
# Anomalous pixels are few: tens of iterations with their usual weight find none of them.
SHORT = {"learning_rate": 2e-3, "focal_alpha": 0.9}
LAPTOP_CASE: dict[tuple[str, bool], dict[str, Any]] = {
    ("detection", False): {"learning_rate": 5e-4, "epochs": 1},
    ("detection", True): {"learning_rate": 5e-4, "iterations": 40},
    ("segmentation", False): SHORT | {"epochs": 8},
    ("segmentation", True): SHORT | {"iterations": 60},
}


class TwoClass(BaseModel):
    """Everything that decides what a training ends in."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    task: Task = Field(description="detection: images; segmentation: pixels")
    epochs: Count | None = Field(None, description="passes over the images, or else iterations")
    iterations: Count | None = Field(None, description="batches, or else epochs")
    batch_size: int = Field(gt=1, description="images an iteration, over all devices")
    size: ImageSize = Field(description="side of the images, pixels")
    optimizer: Literal["sgd", "adam"] = Field(description="sgd: with momentum 0.9")
    learning_rate: Positive = Field(description="fixed, of all weights")
    weight_decay: float = Field(0.0, ge=0, description="of all weights")
    augment: Augment = Field(description="of training images: none, flips or shifts")
    balance: Balance = Field(description="of the classes: none, sampling or weights")
    decoder_width: int = Field(
        ge=16, multiple_of=16, description="channels of the U-Net's deepest decoder block"
    )
    focal_gamma: float = Field(2.0, ge=0, description="of the focal loss; 0: cross-entropy")
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.25, description="of the focal loss: weight of anomalous pixels, of normal ones 1 - it"
    )
    seed: int = Field(0, ge=0, description="of head or decoder, order and augmentation")

    @model_validator(mode="after")
    def _one_length(self) -> "TwoClass":
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("epochs, iterations: exactly one of them says how long to train")
        return self

    def steps(self, images: int) -> int:
        """Batches of a training on so many images."""
        return self.iterations or math.ceil(self.epochs * images / self.batch_size)


def settings(task: Task, few_shot: bool, preset: str = "laptop", **changes: Any) -> TwoClass:
    """A preset's settings, with changes, checked.

    Args:
        task: ``detection`` or ``segmentation``.
        few_shot: Whether a few images of each class are there, or the high-shot split.
        preset: ``laptop`` or ``paper``.
        **changes: Settings by name; None changes nothing. ``epochs`` takes the place of
            ``iterations`` and the reverse.

    Raises:
        ValueError: Task, preset or a setting is unknown or does not fit; names it.

    >>> settings("segmentation", few_shot=True, preset="paper").iterations
    500
    """
    if preset not in ("laptop", "paper"):
        raise ValueError(f"preset: {preset!r} is not one of laptop, paper")
    if (task, few_shot) not in LENGTH:
        raise ValueError(f"task: {task!r} is not one of detection, segmentation")
    changes = {name: value for name, value in changes.items() if value is not None}
    values = {"task": task} | PAPER | LENGTH[task, few_shot]
    if preset == "laptop":
        values |= LAPTOP | LAPTOP_CASE[task, few_shot]
    if {"epochs", "iterations"} & changes.keys():
        values = {k: v for k, v in values.items() if k not in ("epochs", "iterations")}
    try:
        return TwoClass(**values | changes)
    except ValidationError as error:
        message = explain(error, TwoClass)
    raise ValueError("the settings do not fit:\n  " + message)


class Run(NamedTuple):
    """One training: task, pretraining, shots (None for the high-shot split) and draw."""

    task: Task
    method: str
    k: int | None
    draw: int


def runs(preset: str, methods: Sequence[str], shots: Sequence[int] = SHOTS) -> list[Run]:
    """Which trainings a preset asks for.

    ``paper``: everything, 5 and 10 shots in five draws, and high-shot. ``laptop``: one draw of
    10 shots of the classifier; of the U-Net that and high-shot, for the first and last method.

    Args:
        preset: ``laptop`` or ``paper``.
        methods: The pretrainings that are compared.
        shots: Numbers of labelled images of each class that there are; without 5 and 10 among
            them, the largest is taken in their place.

    >>> len(runs("paper", ["imagenet"])), len(runs("laptop", ["imagenet", "simsiam"]))
    (22, 6)
    >>> {run.k for run in runs("laptop", ["imagenet"], shots=[2, 3])} == {3, None}
    True
    """
    wanted = [k for k in SHOTS if k in shots] or [max(shots)]
    if preset == "paper":
        cases = [(k, draw) for k in wanted for draw in range(5)] + [(None, 0)]
        return [Run(t, m, *case) for t in TASKS for case in cases for m in methods]
    ends = dict.fromkeys([methods[0], methods[-1]])
    classifiers = [Run("detection", method, wanted[-1], 0) for method in methods]
    return classifiers + [Run("segmentation", m, k, 0) for k in (wanted[-1], None) for m in ends]


def table() -> pd.DataFrame:
    """The paper preset by task and protocol; after an arrow, where the laptop departs from it."""
    columns = {}
    for (task, few_shot), _ in LENGTH.items():
        paper, laptop = (settings(task, few_shot, preset) for preset in ("paper", "laptop"))
        name = f"{task}, {'few-shot' if few_shot else 'high-shot'}"
        columns[name] = {
            field: _cell(getattr(paper, field), getattr(laptop, field), field, task)
            for field in TwoClass.model_fields
            if field not in ("task", "seed")
        }
    shown = pd.DataFrame(columns)
    shown["chosen by"] = [STATED.get(name, "us") for name in shown.index]
    return shown


def _cell(paper: Any, laptop: Any, field: str, task: str) -> str:
    only_segmentation = field.startswith(("focal", "decoder"))
    if paper is None or (only_segmentation and task == "detection"):
        return "-"
    return f"{paper}" if paper == laptop else f"{paper} → {laptop}"
