"""Settings of pretraining, one checked set for notebook and command line, and two presets.

``paper`` holds each baseline's published defaults and Zou et al.'s eta; ``laptop`` departs from
them where two cores and five minutes ask for it. :func:`table` shows both, side by side.
"""

import math
import re
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from spdlib.methods import METHODS, known, run_name, spelled, split_name
from spdlib.settings import EncoderName, ImageSize, explain
from spdlib.smoothblend import Foreground

MethodName = Annotated[str, AfterValidator(known)]
Preset = Literal["laptop", "paper"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

# Zou et al., ECCV 2022: the method's own settings and the network of most of its tables.
PAPER = {"encoder": "resnet50", "weights": "random", "size": 224, "eta": 0.1}

# A departure from the baselines' pipelines, which crop images of their own size and shape.
SQUASHED = "images, made square first"

LAPTOP = {
    "encoder": "efficientnet_lite0", "weights": "imagenet", "size": 96, "eta": 1.0,
    "epochs": 2, "batch_size": 16,
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
    optimizer: Literal["sgd", "lars"] = Field(description="optimiser, with momentum 0.9")
    base_lr: Positive = Field(description="learning rate at a batch of 256, scaled linearly")
    weight_decay: float = Field(ge=0, description="decay of weights; LARS spares norms, biases")
    schedule: Literal["cosine", "steps"] = Field(description="steps: a tenth every 30 epochs")
    warmup_epochs: int = Field(ge=0, description="epochs of linear growth of the learning rate")
    temperature: Positive | None = Field(None, description="temperature of the contrastive loss")
    queue: int | None = Field(None, gt=0, description="negative keys kept; multiple of the batch")
    key_momentum: Share | None = Field(None, description="share that MoCo's key encoder keeps")
    key_splits: int | None = Field(None, gt=0, description="groups that MoCo normalises keys in")
    stop_gradient: bool = Field(True, description="SimSiam's; False makes it collapse")
    spd: Literal["cosine", "cross_entropy", "dense", "placebo"] = Field(
        "cosine",
        description="cosines of projections; an auxiliary head on the features; cosines of the "
        "stages' cells; or cosine's passes without its gradient, a control",
    )
    blend: Literal["smoothblend", "cutpaste"] = Field("smoothblend", description="what perturbs")
    foreground: Foreground = Field("zero", description="what SmoothBlend has around its patch")
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
    frozen_statistics: bool = Field(
        True, description="SPD's passes leave batch normalisation's running statistics alone"
    )
    stages: list[Annotated[int, Field(ge=1, le=4)]] = Field(
        [2, 3], min_length=1, description="stages of the encoder, for dense SPD and for the guard"
    )
    projection: int = Field(0, ge=0, description="channels of dense SPD's projection; 0: none")
    guard: float = Field(0, ge=0, description="weight of a pull of the stages to where they start")
    frozen_batchnorm: bool = Field(
        False, description="the encoder normalises by the running statistics that it starts with"
    )
    patience: int = Field(
        0, ge=0, description="epochs without a better held-out score before it stops; 0: never"
    )
    seed: int = Field(0, ge=0, description="seed of heads, views, blends and the order of images")

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        needs = METHODS[self.method].needs
        for name in needs:
            if getattr(self, name, "counted") is None:
                raise ValueError(f"{name}: {self.method} needs it")
        if self.queue and "queue" in needs and self.queue % self.batch_size:
            raise ValueError(f"queue: {self.queue} is no multiple of batch_size {self.batch_size}")
        if "key_splits" in needs and self.batch_size < 2 * (self.key_splits or 1):
            raise ValueError(f"key_splits: {self.key_splits} groups of {self.batch_size} images")
        if self.blend == "cutpaste" and self.foreground != "zero":
            raise ValueError(f"foreground: CutPaste pastes hard, {self.foreground} would not show")
        if self.spd == "dense" and not self.independent_views:
            raise ValueError("independent_views: dense SPD needs views of independent colours")
        return self

    @property
    def name(self) -> str:
        """The method as files and figures name it, by :func:`spdlib.methods.run_name`."""
        usual = settings(self.method, self.preset, spd=self.spd if self.spd in TERM_OF else None)
        names = [name for name in NAMED if getattr(self, name) != getattr(usual, name)]
        departures = {name: getattr(self, name) for name in names if self.eta or name in GUARDS}
        term = TERM_OF.get(self.spd, "spd") if self.eta else ""
        return run_name(self.method, term, departures)

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


# Settings that are part of a training's name where they depart from its preset.
GUARDS = ("guard", "frozen_batchnorm")
NAMED = ("eta", "spd", "blend", "foreground", "frozen_statistics", *GUARDS)
TERM_OF = {"dense": "dense", "placebo": "placebo"}

# What our sources do not settle, each a setting with a default; and who says what. The sources
# are appendix C of Zou et al. and our notes on their main paper.
OPEN_QUESTIONS = {
    "foreground": "zero: our notes on the main paper; appendix C has sizes and sigma, no formula",
    "patch_jitter": "that there is jitter: appendix C; the strength: ours, after CutPaste",
    "independent_views": "ours: so that a global change gives nothing away",
    "fixed_anchor": "ours: the loss as written has a gradient there",
    "joint_triplet": "ours: so that one set of statistics normalises all three",
    "frozen_statistics": "ours: so that with and without SPD differ by a gradient only",
    "key_splits": "MoCo's: 8 GPUs shuffle, each normalises its own keys; in one group: a departure",
    "guard": "ours, not in the paper",
    "frozen_batchnorm": "ours, not in the paper",
    "patience": "ours, not in the paper",
}


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
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes.get("spd") == "placebo":  # its passes are what it is for
        values["frozen_statistics"] = False
    values |= changes
    try:
        return Settings.model_validate(values, strict=False)  # a command line gives text
    except ValidationError as error:
        message = explain(error, Settings)
    raise ValueError("the settings do not fit:\n  " + message)


def named(name: str, preset: str = "laptop", **changes: Any) -> Settings:
    """Settings of a training by its name, such as ``moco``, ``moco_spd`` or ``moco_spd_image``.

    Args:
        name: Name, as :attr:`Settings.name` gives it: a baseline, alone or with a key of
            :data:`spdlib.methods.TERMS` and departures from the preset.
        preset: Name of the preset, as for :func:`settings`.
        **changes: Settings by name, as for :func:`settings`.

    Raises:
        ValueError: The name does not say what departs; or as for :func:`settings`.

    >>> named("simsiam").eta, named("simsiam_dense").spd, named("simsiam_spd_image").foreground
    (0.0, 'dense', 'image')
    """
    base, term, departures = split_name(name)
    changes |= {"spd": TERM_OF[term]} if term in TERM_OF else {} if term else {"eta": 0}
    found = _departures(departures)
    if "_".join(spelled(*departure) for departure in found.items()) != departures:
        raise ValueError(f"{name}: {departures!r} does not say what departs from the preset")
    return settings(base, preset, **changes | found)


def _departures(text: str) -> dict[str, Any]:
    """The settings that the last part of a training's name spells."""
    numbers = re.findall(r"(?:^|_)(eta|guard)([\d.]+)(?=_|$)", text)
    found: dict[str, Any] = {name: float(value) for name, value in numbers}
    for name in NAMED:
        for option in get_args(Settings.model_fields[name].annotation) or (True, False):
            if f"_{spelled(name, option)}_" in f"_{text}_":
                found[name] = option
    return {name: found[name] for name in NAMED if name in found}


def preset_values(method: str, preset: str) -> dict[str, Any]:
    """Settings of a method that a preset gives, by name."""
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is not one of {', '.join(METHODS)}")
    if preset not in ("laptop", "paper"):
        raise ValueError(f"preset: {preset!r} is not one of laptop, paper")
    record = METHODS[method]
    values = {**PAPER, **record.published}
    return values if preset == "paper" else {**values, **LAPTOP, **record.laptop}


def table() -> pd.DataFrame:
    """Published settings by method; after an arrow, where the laptop preset departs from them."""
    presets = {
        m: tuple(preset_values(m, p) | {SQUASHED: _source(m, p)} for p in ("paper", "laptop"))
        for m in METHODS
    }
    known = [*Settings.model_fields, SQUASHED]
    names = [n for n in known if any(n in paper for paper, _ in presets.values())]

    def cell(name: str, paper: dict[str, Any], laptop: dict[str, Any]) -> str:
        if name not in paper:
            return Settings.model_fields[name].default or "-"
        same = laptop[name] == paper[name]
        return f"{paper[name]}" if same else f"{paper[name]} → {laptop[name]}"

    return pd.DataFrame({m: {n: cell(n, *both) for n in names} for m, both in presets.items()})


def _source(method: str, preset: str) -> int:
    return settings(method, preset).source_size


def open_questions() -> pd.DataFrame:
    """Settings that our sources leave open: default, meaning, and who says what."""
    fields = {name: Settings.model_fields[name] for name in OPEN_QUESTIONS}
    return pd.DataFrame(
        {
            "default": {name: str(field.default) for name, field in fields.items()},
            "what it decides": {name: field.description for name, field in fields.items()},
            "who says what": OPEN_QUESTIONS,
        }
    )
