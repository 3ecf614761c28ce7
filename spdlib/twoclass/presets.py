"""Settings of two-class training, checked, and two presets of them.

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
PRESETS = ("paper", "laptop")
SHOTS = (5, 10)  # the paper's numbers of labelled images of each class
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

STATED = {  # in appendix C; the rest is ours
    "epochs": "appendix C", "iterations": "appendix C", "learning_rate": "appendix C",
    "optimizer": "appendix C, high-shot", "freeze": "appendix C, high-shot",
}  # fmt: skip
# Anomalous pixels are few: tens of iterations with their usual weight find none of them.
SHORT = {"learning_rate": 2e-3, "focal_alpha": 0.9}
LAPTOP: dict[str, Any] = {"size": 96, "batch_size": 8, "optimizer": "adam", "decoder_width": 64}
# By task, and whether few-shot: the length in the paper, and what a laptop takes instead.
CASES: dict[tuple[str, bool], tuple[dict[str, Any], dict[str, Any]]] = {
    ("detection", False): ({"epochs": 80}, {"learning_rate": 5e-4, "epochs": 1}),
    ("detection", True): ({"iterations": 1000}, {"learning_rate": 5e-4, "iterations": 40}),
    ("segmentation", False): ({"epochs": 80}, SHORT | {"epochs": 4}),
    ("segmentation", True): ({"iterations": 500}, SHORT | {"iterations": 30}),
}


class TwoClass(BaseModel):
    """Everything that decides what a training ends in; the defaults are the paper's, or ours."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    task: Task  # detection: images; segmentation: pixels
    epochs: Count | None = None  # passes over the images, or else iterations
    iterations: Count | None = None  # batches, or else epochs
    batch_size: Annotated[int, Field(gt=1)] = 16  # images an iteration, over all devices
    size: ImageSize = 224  # side of the images, pixels
    freeze: bool = False  # keep the encoder and its statistics; only head or decoder learn
    optimizer: Literal["sgd", "adam"] = "sgd"  # sgd: with momentum 0.9
    learning_rate: Positive = 1e-4  # fixed, of all weights that learn
    weight_decay: NotNegative = 0.0  # of all weights that learn
    augment: Augment = "shifts"  # of training images
    balance: Balance = "sampling"  # of the classes
    decoder_width: Annotated[int, Field(ge=16, multiple_of=16)] = 256  # of a U-Net's deepest block
    focal_gamma: NotNegative = 2.0  # of the focal loss; 0: cross-entropy
    focal_alpha: Annotated[float, Field(gt=0, lt=1)] | None = 0.25  # weight of anomalous pixels
    seed: Annotated[int, Field(ge=0)] = 0  # of head or decoder, order and augmentation

    @model_validator(mode="after")
    def _one_length(self) -> "TwoClass":
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("epochs, iterations: exactly one of them says how long to train")
        return self

    def steps(self, images: int) -> int:
        """Batches of a training on so many images."""
        return self.iterations or math.ceil((self.epochs or 0) * images / self.batch_size)


def settings(task: str, few_shot: bool, preset: str = "laptop", **changes: Any) -> TwoClass:
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
    if preset not in PRESETS or task not in TASKS:
        raise ValueError(f"{preset!r} is no preset of {PRESETS}, or {task!r} no task of {TASKS}")
    changes = {name: value for name, value in changes.items() if value is not None}
    length, laptop = CASES[task, few_shot]
    values = {"task": task} | length
    if preset == "laptop":
        values |= LAPTOP | laptop
    if {"epochs", "iterations"} & changes.keys():
        values |= {"epochs": None, "iterations": None}
    try:
        return TwoClass(**values | changes)
    except ValidationError as error:
        message = explain(error, TwoClass)
    raise ValueError("the settings do not fit:\n  " + message)


class Run(NamedTuple):
    """One training: task, pretraining, shots (None for the high-shot split) and draw."""

    task: str
    method: str
    k: int | None
    draw: int


def runs(preset: str, methods: Sequence[str], shots: Sequence[int] = SHOTS) -> list[Run]:
    """The trainings that a preset asks for.

    ``paper``: everything, 5 and 10 shots in five draws, and high-shot. ``laptop``: for the first
    three methods (a baseline, and a pair without and with SPD) one draw of 10 shots, and high-shot
    of the U-Net alone.

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
        cases = [*[(k, draw) for k in wanted for draw in range(5)], (None, 0)]
        return [Run(t, m, *case) for t in TASKS for case in cases for m in methods]
    few, first = wanted[-1], methods[:3]
    parts = ("detection", few), ("segmentation", few), ("segmentation", None)
    return [Run(task, method, k, 0) for task, k in parts for method in first]


def table() -> pd.DataFrame:
    """The paper preset by task and protocol; after an arrow, where the laptop departs from it."""
    columns = {}
    for task, few_shot in CASES:
        paper, laptop = (settings(task, few_shot, name).model_dump() for name in PRESETS)
        columns[f"{task}, {'few-shot' if few_shot else 'high-shot'}"] = {
            name: f"{value}" if value == laptop[name] else f"{value} → {laptop[name]}"
            for name, value in paper.items()
            if value is not None
        }
    shown = pd.DataFrame(columns).reindex(TwoClass.model_fields).drop(["task", "seed"]).fillna("-")
    of_segmentation = ["decoder_width", "focal_gamma", "focal_alpha"]
    shown.loc[of_segmentation, shown.columns.str.startswith("detection")] = "-"
    return shown.assign(**{"chosen by": [STATED.get(name, "us") for name in shown.index]})
