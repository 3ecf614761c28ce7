"""The explorer of attention maps, used as a reader uses it."""

import pytest
import torch

from spdlib.attention import NormalBank
from spdlib.datasets import SampleImages, elpv, loader
from spdlib.encoders import load_encoder
from spdlib.notebooks.explorers.attention import attention_explorer
from spdlib.notebooks.explorers.explorer import errors

SIZE = 64


@pytest.fixture(scope="module")
def box():
    cells = elpv("poly")
    normals = cells.query("split == 'train'").head(4).reset_index(drop=True)
    images = next(iter(loader(cells.query("label == 1").head(2), SIZE)))["image"]
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    masks[0, 20:30, 20:30] = True
    torch.manual_seed(0)
    encoders = {"imagenet": load_encoder("efficientnet_lite0", "imagenet"),
                "random": load_encoder("resnet18")}  # fmt: skip
    banks = {name: NormalBank.build(e, loader(normals, SIZE)) for name, e in encoders.items()}
    names = ["painted", "defective"]
    return attention_explorer(images, names, masks, encoders, banks, SampleImages(normals, SIZE))


def test_every_control_changes_the_picture(box):
    assert errors(box) == []
    seen = {box.picture.value}
    settings = {"encoder": "imagenet", "stage": 2, "method": "layercam", "image": 1, "strength": 0}
    for name, value in settings.items():
        assert box.controls[name].value != value
        box.controls[name].value = value
        assert errors(box) == []
        assert box.picture.value not in seen
        seen.add(box.picture.value)


def test_every_method_draws_at_every_stage(box):
    for method in ("gradcam", "hirescam", "layercam", "eigencam"):
        for stage in (1, 2, 3, 4):
            box.controls["method"].value, box.controls["stage"].value = method, stage
            assert errors(box) == []
