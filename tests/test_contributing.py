"""The recipes of CONTRIBUTING.md, followed: each test adds one in a new module, and runs it."""

import sys

import nbformat
import numpy as np
import papermill
import pytest
import torch
import torchvision
from pydantic import TypeAdapter
from sklearn.metrics import roc_curve

from spdlib import detectors, evaluation, methods, metrics, results
from spdlib.architectures import ARCHITECTURES
from spdlib.datasets import load, loader, problems
from spdlib.datasets.registry import DATASETS
from spdlib.encoders import load_encoder, save_encoder
from spdlib.metrics.measures import METRICS
from spdlib.notebooks import parameters
from spdlib.padim import PaDiM
from spdlib.pretraining import pretrain
from spdlib.pretraining.presets import settings
from spdlib.settings import EncoderName
from spdlib.twoclass import Segmenter

DENSENET = """
from functools import partial

from torch import nn
from torchvision.models import densenet121

from spdlib.architectures import ARCHITECTURES, IMAGENET_NORM, Architecture, torchvision_weights


def build():
    network = densenet121(weights=None)
    network.classifier = nn.Identity()
    # Torchvision's forward pass ends in functions; as modules they can be named.
    network.relu, network.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return network


ARCHITECTURES["densenet121"] = Architecture(
    build=build,
    segments=(
        ("features.conv0", "features.norm0", "features.relu0", "features.pool0",
         "features.denseblock1"),
        ("features.transition1", "features.denseblock2"),
        ("features.transition2", "features.denseblock3"),
        ("features.transition3", "features.denseblock4", "features.norm5", "relu"),
    ),
    head=("pool",),
    norm=IMAGENET_NORM,
    imagenet=partial(torchvision_weights, "densenet121"),
    padim_features=200,
    unet="tu-densenet121",
)
"""


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Imports a module of the given text, as if it were part of the library."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return write


@torch.no_grad()
def test_an_architecture_is_one_entry(add, monkeypatch, tmp_path):
    monkeypatch.setitem(ARCHITECTURES, "densenet121", None)  # taken away again afterwards
    add("densenet", DENSENET)
    assert TypeAdapter(EncoderName).validate_python("densenet121")
    torch.manual_seed(0)
    encoder = load_encoder("densenet121")
    images = torch.rand(4, 3, 64, 64)
    plain = torchvision.models.densenet121(weights=None).eval()
    plain.classifier = torch.nn.Identity()
    plain.load_state_dict(encoder.network.state_dict())
    torch.testing.assert_close(encoder(images), plain((images - encoder.mean) / encoder.std))

    path = save_encoder(encoder, tmp_path / "densenet.safetensors")
    model = PaDiM(load_encoder("densenet121", path)).fit([images])
    assert model.n_features == 200
    again = PaDiM.load(model.save(tmp_path / "padim.safetensors"))
    assert torch.equal(again.score([images])[0], model.score([images])[0])

    unet = Segmenter(encoder, 32).eval()
    stages = unet.unet.encoder((images - unet.mean) / unet.std)[-4:]
    for ours, theirs in zip(stages, encoder.stages(images, 4), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


DETECTOR = '''
import torch

from spdlib.detectors import DETECTORS, Detector


class MeanFeature:
    """Distance to the mean of the normal images' features, the same at every pixel."""

    def __init__(self, encoder, n_features=None, seed=0):
        self.encoder = encoder

    @torch.no_grad()
    def fit(self, batches):
        self.mean = torch.cat([self.encoder(images) for images in batches]).mean(0)
        return self

    @torch.no_grad()
    def score(self, batches):
        scored = [(self._distances(images), images.shape[-2:]) for images in batches]
        maps = [d[:, None, None].expand(-1, *size) for d, size in scored]
        return torch.cat(maps), torch.cat([d for d, _ in scored])

    def _distances(self, images):
        return (self.encoder(images) - self.mean).norm(dim=1)


DETECTORS["mean_feature"] = Detector("mean feature", MeanFeature)
'''


def test_a_detector_is_one_record(add, monkeypatch):
    monkeypatch.setitem(detectors.DETECTORS, "mean_feature", None)
    add("mean_feature", DETECTOR)
    table = evaluation.samples("elpv", ["mono"], train_images=6, test_images=4)
    encoders = {"imagenet": load_encoder("efficientnet_lite0", "imagenet")}
    found = evaluation.evaluate(table, encoders, 64, detector="mean_feature")
    rows = evaluation.measure(found, "elpv", "efficientnet_lite0", repeats=10)
    assert set(rows.downstream_model) == {"mean feature"}
    assert rows.value.between(0, 1).all()


DATASET = '''
import numpy as np
import pandas as pd
from PIL import Image


def stripes(folder):
    """Striped plates, every fourth with a scratch."""
    rng, rows = np.random.default_rng(0), []
    for i in range(24):
        image = np.tile(np.arange(64) % 8 * 20, (64, 1)) + rng.integers(0, 20, (64, 64))
        mask = np.zeros((64, 64), bool)
        if defective := i % 4 == 3:
            mask[20:24, 10:50] = True
            Image.fromarray(mask).save(folder / f"{i}_mask.png")
        Image.fromarray((image + 60 * mask).astype("uint8")).save(folder / f"{i}.png")
        rows.append(
            {
                "path": str(folder / f"{i}.png"),
                "mask_path": str(folder / f"{i}_mask.png") if defective else None,
                "label": int(defective),
                "category": "stripes",
                "defect": "scratch" if defective else None,
                "split": "test" if defective or i % 3 == 0 else "train",
            }
        )
    return pd.DataFrame(rows)
'''


def test_a_data_set_is_a_function_and_one_record(add, monkeypatch, tmp_path):
    stripes = add("stripes", DATASET).stripes
    monkeypatch.setitem(DATASETS, "stripes", lambda categories, seed: stripes(tmp_path))
    table = load("stripes")
    assert not problems(table)
    train, test = (table[table.split == part] for part in ("train", "test"))
    model = PaDiM(load_encoder("resnet18"), 20).fit(loader(train, size=64))
    maps, _ = model.score(loader(test, size=64))
    masks = torch.cat([batch["mask"] for batch in loader(test, size=64)])
    assert metrics.auroc(masks, maps) > 0.5


METRIC = """
import numpy as np

from spdlib.metrics.measures import METRICS, Metric


def recall_at_5_percent(counts):
    allowed = counts.at_or_above <= 0.05 * counts.negative_total
    return np.where(allowed, counts.found / counts.positive_total, 0).max(-1)


METRICS["recall_at_5"] = Metric("recall at 5 % FPR", recall_at_5_percent)
"""


def test_a_metric_is_one_record(add, monkeypatch):
    monkeypatch.setitem(METRICS, "recall_at_5", None)
    add("recall_at_5", METRIC)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = (labels + rng.normal(size=200)).round(1)
    rows = results.rows(
        metrics.evaluate(labels, scores), metrics.bootstrap(labels, scores, 50)
    ).set_index("metric")
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    row = rows.loc["recall at 5 % FPR"]
    assert row.value == pytest.approx(tpr[fpr <= 0.05].max())
    assert row.low < row.value < row.high


METHOD = '''
from dataclasses import replace

import torch.nn.functional as F
from torch import nn

from spdlib.methods import METHODS
from spdlib.objectives import Baseline


class Agreement(Baseline):
    """Two views agree, and nothing else; it collapses."""

    def __init__(self, encoder):
        super().__init__(encoder, nn.Linear(encoder.feature_dim, 16))

    def loss(self, first, second):
        return 1 - F.cosine_similarity(self.project(first), self.project(second)).mean()


METHODS["agreement"] = replace(
    METHODS["simsiam"], title="Agreement", baseline=Agreement, laptop={}, needs=()
)
'''


def test_a_pretraining_method_is_one_record(add, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "agreement", None)
    add("agreement", METHOD)
    assert methods.method_name("agreement_spd") == "Agreement + SPD"
    chosen = settings(
        "agreement", "laptop", eta=1.0, encoder="resnet18", weights="random", size=32, epochs=1,
        batch_size=8,
    )  # fmt: skip
    images = torch.randint(0, 255, (16, 3, 48, 48), dtype=torch.uint8)
    encoder = load_encoder("resnet18")
    history = pretrain(encoder, images, chosen)
    assert np.isfinite(history.loss).all() and encoder.provenance["method"] == "agreement"


NOTEBOOK_MODEL = '''
from spdlib.notebooks.parameters import Parameters
from spdlib.settings import Count


class Tour(Parameters):
    """Notebook 08."""

    images: Count
'''


def notebook():
    cells = [
        nbformat.v4.new_code_cell("images: int = 4\nseed: int = 0\ninteractive: bool = True"),
        nbformat.v4.new_code_cell(
            "from tour import Tour\nfrom spdlib.notebooks.parameters import check\n"
            "p = check(Tour, globals())\nprint(2 * p.images)"
        ),
    ]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.mark.slow
def test_a_notebook_is_a_file_and_a_model_of_its_parameters(add, tmp_path, monkeypatch):
    assert issubclass(add("tour", NOTEBOOK_MODEL).Tour, parameters.Parameters)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    nbformat.write(notebook(), tmp_path / "08_tour.ipynb")
    ran = tmp_path / "ran.ipynb"
    papermill.execute_notebook(tmp_path / "08_tour.ipynb", ran, {"images": 5}, progress_bar=False)
    assert nbformat.read(ran, 4).cells[-1].outputs[0].text == "10\n"
    with pytest.raises(papermill.PapermillExecutionError, match=r"images: .* not 0"):
        papermill.execute_notebook(
            tmp_path / "08_tour.ipynb", ran, {"images": 0}, progress_bar=False
        )
