"""How to pretrain: one checked set of settings for notebook and command line, and two presets.

``paper`` holds each baseline's published defaults and Zou et al.'s eta; ``laptop`` departs from
them where two cores and five minutes ask for it. :func:`table` shows both, side by side.
"""

import math
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from spdlib.methods import METHODS, known, run_name
from spdlib.settings import EncoderName, ImageSize, explain

MethodName = Annotated[str, AfterValidator(known)]
Preset = Literal["laptop", "paper"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

# Zou et al., ECCV 2022: the method's own settings and the network of most of its tables.
PAPER = {"encoder": "resnet50", "weights": "random", "size": 224, "eta": 0.1}

LAPTOP = {
    "encoder": "efficientnet_lite0", "weights": "imagenet", "size": 96, "eta": 1.0,
    "epochs": 2, "batch_size": 32,
}  # fmt: skip


class Settings(BaseModel):
    """Everything that decides what a training ends in. Described field by field below."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    method: MethodName = Field(description=f"the baseline ({', '.join(METHODS)})")
    eta: float = Field(ge=0, description="weight of the SPD loss; 0 is the baseline alone")
    preset: Preset = Field("laptop", description="where what is not given comes from")
    dataset: str = Field(
        "elpv", min_length=1, description="elpv, visa, mvtec or a folder of images"
    )
    categories: list[str] | None = Field(None, description="which of its categories; default: all")
    encoder: EncoderName = Field(description="the network that is trained")
    weights: str = Field(description="where it starts: random, imagenet or a weight file")
    size: ImageSize = Field(description="side of the views, pixels")
    epochs: int = Field(gt=0, description="passes over the images")
    batch_size: int = Field(gt=1, description="images a step, over all processes")
    optimizer: Literal["sgd", "lars"] = Field(description="with momentum 0.9")
    base_lr: Positive = Field(description="learning rate at a batch of 256, scaled linearly")
    weight_decay: float = Field(ge=0, description="of all weights; LARS spares norms and biases")
    schedule: Literal["cosine", "steps"] = Field(description="steps: a tenth every 30 epochs")
    warmup_epochs: int = Field(ge=0, description="of linear growth of the learning rate")
    temperature: Positive | None = Field(None, description="of the contrastive loss")
    queue: int | None = Field(None, gt=0, description="negative keys kept; multiple of the batch")
    key_momentum: Share | None = Field(None, description="share that MoCo's key encoder keeps")
    stop_gradient: bool = Field(True, description="SimSiam's; False makes it collapse")
    spd: Literal["cosine", "cross_entropy"] = Field(
        "cosine", description="cosines of projections, or an auxiliary head on the features"
    )
    blend: Literal["smoothblend", "cutpaste"] = Field("smoothblend", description="what perturbs")
    patch_jitter: float = Field(
        0.1, ge=0, le=0.5, description="strength of the patch's brightness ... hue jitter"
    )
    independent_views: bool = Field(
        True, description="negative from a weak view of its own, or from the positive"
    )
    fixed_anchor: bool = Field(False, description="no gradient of the SPD loss at the anchor")
    joint_triplet: bool = Field(
        True, description="one batch of anchor, positive and negative, or one of each"
    )
    seed: int = Field(0, ge=0, description="of heads, views, blends and the order of images")

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        needs = METHODS[self.method].needs
        for name in needs:
            if getattr(self, name, "counted") is None:
                raise ValueError(f"{name}: {self.method} needs it")
        if "queue" in needs and self.queue % self.batch_size:
            raise ValueError(f"queue: {self.queue} is no multiple of batch_size {self.batch_size}")
        return self

    @property
    def name(self) -> str:
        """The method as files and figures name it, by :func:`spdlib.methods.run_name`."""
        return run_name(self.method, self.eta, preset_values(self.method, self.preset)["eta"])

    @property
    def learning_rate(self) -> float:
        """The largest learning rate, scaled with the batch."""
        return self.base_lr * self.batch_size / 256

    @property
    def source_size(self) -> int:
        """Side that images are resized to before views are cropped: 256 for views of 224.

        >>> settings("simsiam", "paper").source_size
        256
        """
        return round(self.size * 8 / 7)

    def rate_at(self, step: int, steps: int) -> float:
        """Share of the largest learning rate at a step of ``steps``, in [0, 1].

        >>> settings("simsiam").rate_at(0, 100), settings("simsiam").rate_at(50, 100)
        (1.0, 0.5)
        """
        epochs = self.epochs * step / steps
        if epochs < self.warmup_epochs:
            return (step + 1) / (self.warmup_epochs / self.epochs * steps + 1)
        if self.schedule == "steps":
            return 0.1 ** int(epochs // 30)
        done = (epochs - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return 0.5 * (1 + math.cos(math.pi * done))


# What Zou et al. leave open, each a setting with a default.
OPEN_QUESTIONS = (
    "patch_jitter",
    "independent_views",
    "fixed_anchor",
    "joint_triplet",
)


def settings(method: str, preset: str = "laptop", **changes: Any) -> Settings:
    """A preset's settings for a method, with changes, checked.

    Args:
        method: A key of :data:`spdlib.methods.METHODS`.
        preset: ``laptop`` or ``paper``.
        **changes: Settings by name; text is read as the setting's type, None changes nothing.

    Raises:
        ValueError: Method, preset or a setting is unknown or does not fit; names it.

    >>> settings("moco", "paper", eta=0.5).queue
    65536
    """
    values = {"method": method, "preset": preset} | preset_values(method, preset)
    values |= {name: value for name, value in changes.items() if value is not None}
    try:
        return Settings.model_validate(values, strict=False)  # a command line gives text
    except ValidationError as error:
        message = explain(error, Settings)
    raise ValueError("the settings do not fit:\n  " + message)


def preset_values(method: str, preset: str) -> dict[str, Any]:
    """What a preset sets for a method."""
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is not one of {', '.join(METHODS)}")
    if preset not in ("laptop", "paper"):
        raise ValueError(f"preset: {preset!r} is not one of laptop, paper")
    record = METHODS[method]
    values = PAPER | record.published
    return values if preset == "paper" else values | LAPTOP | record.laptop


def table() -> pd.DataFrame:
    """Published settings by method; after an arrow, where the laptop preset departs from them."""
    presets = {m: (preset_values(m, "paper"), preset_values(m, "laptop")) for m in METHODS}
    names = [n for n in Settings.model_fields if any(n in paper for paper, _ in presets.values())]

    def cell(name: str, paper: dict[str, Any], laptop: dict[str, Any]) -> str:
        if name not in paper:
            return Settings.model_fields[name].default or "-"
        same = laptop[name] == paper[name]
        return f"{paper[name]}" if same else f"{paper[name]} → {laptop[name]}"

    return pd.DataFrame({m: {n: cell(n, *both) for n in names} for m, both in presets.items()})


def open_questions() -> pd.DataFrame:
    """What the paper leaves open: setting, default and meaning."""
    fields = {name: Settings.model_fields[name] for name in OPEN_QUESTIONS}
    return pd.DataFrame(
        {
            "default": {name: str(field.default) for name, field in fields.items()},
            "what it decides": {name: field.description for name, field in fields.items()},
        }
    )
