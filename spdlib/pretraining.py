"""Pretraining an encoder, with and without SPD.

A LightningModule, so devices, precision and nodes are Lightning's. Views are made on the
training device, a batch at a time, from one generator.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from spdlib import paths
from spdlib.datasets import SampleImages
from spdlib.encoders import Encoder, save_encoder
from spdlib.metrics import aupr, auroc
from spdlib.objectives import Objective
from spdlib.progress import Bar, track
from spdlib.smoothblend import SmoothBlend
from spdlib.views import StrongView, WeakView, spd_triplet


@dataclass(frozen=True)
class Settings:
    """How to pretrain. The defaults are SimSiam's (Chen & He, 2021) and the paper's eta.

    Attributes:
        method: The baseline.
        eta: Weight of the SPD loss; 0 for the baseline alone. The paper's is 0.1.
        epochs: Passes over the images.
        batch_size: Images a step.
        size: Side of the views, pixels.
        base_lr: Learning rate at a batch of 256, scaled linearly, decayed by a cosine.
        weight_decay: Of SGD with momentum 0.9.
        seed: Of heads, views, blends and the order of images.
    """

    method: str = "simsiam"
    eta: float = 0.1
    epochs: int = 100
    batch_size: int = 512
    size: int = 224
    base_lr: float = 0.05
    weight_decay: float = 1e-4
    seed: int = 0

    @property
    def name(self) -> str:
        """The method as files and figures name it: ``simsiam`` or ``simsiam_spd``."""
        return self.method + ("_spd" if self.eta else "")


class Pretraining(pl.LightningModule):
    """One method's training: encoder, objective, views.

    Args:
        encoder: What is trained.
        settings: How.
        steps: Of the whole training, for the learning rate's cosine.
    """

    def __init__(self, encoder: Encoder, settings: Settings, steps: int):
        super().__init__()
        self.encoder, self.settings, self.steps = encoder, settings, steps
        self.objective = Objective(settings.method, encoder.feature_dim, settings.eta)
        self.strong = StrongView(settings.method, settings.size)
        self.weak = WeakView(settings.size)
        self.blend = SmoothBlend()
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.history: list[dict[str, float]] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """One step on uint8 images (B, 3, H, W)."""
        images = batch[0].float() / 255
        strong = self.strong(images, self.generator), self.strong(images, self.generator)
        triplet = None
        if self.settings.eta:
            triplet = spd_triplet(images, self.weak, self.blend, self.generator)
        terms = self.objective(self.encoder, strong, triplet)
        for name, value in terms.items():
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"step {self.global_step}: {name} is {value.item()} (epoch "
                    f"{self.current_epoch}, batch {index}); try a smaller learning rate"
                )
        row = {name: value.item() for name, value in terms.items()}
        self.history.append({"step": self.global_step, "epoch": self.current_epoch, **row})
        return terms["loss"]

    def configure_optimizers(self) -> dict[str, Any]:
        """SGD; the cosine decay leaves SimSiam's predictor alone, as its authors advise."""
        rate = self.settings.base_lr * self.settings.batch_size / 256
        fixed = {id(p) for n, p in self.named_parameters() if ".prediction." in n}
        groups = [
            {"params": [p for p in self.parameters() if id(p) not in fixed]},
            {"params": [p for p in self.parameters() if id(p) in fixed]},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.SGD(
            groups, lr=rate, momentum=0.9, weight_decay=self.settings.weight_decay
        )
        half_turn = torch.pi / max(1, self.steps)
        cosine = [lambda step: 0.5 * (1 + float(torch.cos(torch.tensor(step * half_turn))))]
        schedules = cosine + [lambda step: 1.0] * (len(groups) - 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedules)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Progress(pl.Callback):
    def __init__(self, text: str, images: int):
        self.bar = Bar(images, text, "images")

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        self.bar.update(len(batch[0]), f"loss {module.history[-1]['loss']:+.3f}")

    def on_train_end(self, trainer, module) -> None:
        self.bar.close()


def pretrain(
    encoder: Encoder,
    images: Tensor,
    settings: Settings,
    data: str,
    text: str = "",
    **trainer: Any,
) -> pd.DataFrame:
    """Trains the encoder in place, on images of one table.

    Args:
        encoder: What to train; in evaluation mode afterwards.
        images: uint8 (N, 3, H, W), at least as large as the views, as :func:`decode` gives.
        settings: How to train.
        data: What the images are, for the provenance.
        text: What the progress bar says.
        **trainer: Passed to Lightning's ``Trainer``: ``devices``, ``precision`` ...

    Returns:
        One row a step: the loss and its terms.

    Raises:
        ValueError: There are fewer images than a batch, or nothing to train for.
        FloatingPointError: A loss is not finite; names the step and the term.
    """
    if len(images) < settings.batch_size:
        raise ValueError(f"batch_size: {settings.batch_size} is more than the {len(images)} images")
    if settings.epochs < 1:
        raise ValueError(f"epochs: {settings.epochs}, at least 1 is needed")
    steps_an_epoch = len(images) // settings.batch_size
    started_from = dict(encoder.provenance)
    # Heads are initialised from the global state, which is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = Pretraining(encoder.train(), settings, settings.epochs * steps_an_epoch)
    order = torch.Generator().manual_seed(settings.seed)
    batches = DataLoader(
        TensorDataset(images),
        settings.batch_size,
        shuffle=True,
        drop_last=True,
        generator=order,
    )
    progress = _Progress(
        text or settings.name, settings.epochs * steps_an_epoch * settings.batch_size
    )
    pl.Trainer(
        max_epochs=settings.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[progress],
        **trainer,
    ).fit(module, batches)
    encoder.eval()
    encoder.provenance = {
        "encoder": encoder.name,
        **asdict(settings),
        "data": data,
        "images": len(images),
        "steps": settings.epochs * steps_an_epoch,
        "started_from": started_from,
        "versions": {name: version(name) for name in ("torch", "torchvision", "spdlib")},
    }
    return pd.DataFrame(module.history)


def decode(table: pd.DataFrame, size: int) -> Tensor:
    """All images of a table as uint8 (N, 3, size, size): read once, not once an epoch."""
    samples = SampleImages(table, size, resize=size)
    return torch.stack(
        [
            (samples[i]["image"] * 255).round().byte()
            for i in track(range(len(samples)), "reading images", "images")
        ]
    )


def export(encoder: Encoder, path: str | Path) -> Path:
    """Writes a pretrained encoder with its provenance; checks that there is room for it first.

    Raises:
        OSError: The folder cannot be written, or the disk is nearly full.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    needed = 2 * sum(t.numel() * t.element_size() for t in encoder.state_dict().values())
    if shutil.disk_usage(folder).free < needed:
        raise OSError(f"{paths.show(folder)}: less than {needed / 1e6:.0f} MB free")
    return save_encoder(encoder, path)


@torch.no_grad()
def spot_the_difference(
    encoder: Encoder, images: Tensor, size: int, seed: int = 0, batch_size: int = 64
) -> dict[str, Any]:
    """How well the distance to the anchor tells a blended image from a weak global view.

    What SPD asks of the features, measured on images it was not trained on: each image's
    pooled feature is compared with that of a weak view of it and of a blended weak view.

    Args:
        encoder: Evaluated as it is.
        images: uint8 (N, 3, H, W), normal, held out.
        size: Side of the views, pixels.
        seed: Of views and blends: the same for every encoder that is compared.
        batch_size: Images at a time.

    Returns:
        ``auroc`` and ``aupr`` (weak views 0, blended views 1); the cosine distances ``weak``
        and ``blended``, (N,) each; and ``features``, the anchors' (N, D).
    """
    generator = torch.Generator().manual_seed(seed)
    weak_view, blend = WeakView(size), SmoothBlend()
    device = next(encoder.parameters()).device
    weak, blended, features = [], [], []
    for batch in images.split(batch_size):
        triplet = spd_triplet(batch.to(device).float() / 255, weak_view, blend, generator)
        anchor, positive, negative = (encoder(view) for view in triplet)
        weak.append(1 - F.cosine_similarity(anchor, positive))
        blended.append(1 - F.cosine_similarity(anchor, negative))
        features.append(anchor)
    weak, blended, features = (torch.cat(parts).cpu() for parts in (weak, blended, features))
    labels = torch.cat([torch.zeros(len(weak)), torch.ones(len(blended))])
    scores = torch.cat([weak, blended])
    return {
        "auroc": auroc(labels, scores),
        "aupr": aupr(labels, scores),
        "weak": weak.numpy(),
        "blended": blended.numpy(),
        "features": features,
    }


def spread(features: Tensor) -> Mapping[str, float]:
    """Signs of collapse in features (N, D).

    Returns:
        ``std``, the mean standard deviation of the normalised features times sqrt(D): near 1
        when they fill the sphere, 0 when all are one point (Chen & He, 2021, section 4.1); and
        ``effective_rank``, the exponential of the entropy of the singular values (Roy &
        Vetterli, 2007).
    """
    unit = F.normalize(features.double(), dim=1)
    values = torch.linalg.svdvals(features.double() - features.double().mean(0))
    share = values / values.sum().clamp_min(1e-30)
    entropy = -(share * share.clamp_min(1e-30).log()).sum()
    return {
        "std": float(unit.std(0).mean() * features.shape[1] ** 0.5),
        "effective_rank": float(entropy.exp()),
    }
