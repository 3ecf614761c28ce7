"""One door for every data set: what pretraining sees is never what the notebooks test on."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spdlib import evaluation
from spdlib.datasets import load
from spdlib.pretraining.cli import tables

SIZE = 40


@pytest.fixture(autouse=True)
def painted_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path / "data"))


@pytest.fixture
def draw():
    """Writes pictures of noise, no two alike, or masks."""
    rng = np.random.default_rng(0)

    def draw(folder: Path, count: int, mask: bool = False) -> None:
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (SIZE, SIZE), np.uint8)
            if mask:
                pixels[:] = 0
                pixels[5:15, 5:15] = 255
            Image.fromarray(pixels).save(folder / f"{i}.png")

    return draw


def own(root, draw):
    draw(root / "normal", 12)
    draw(root / "anomaly" / "dent", 3)
    draw(root / "masks" / "dent", 3, mask=True)


def own_categories(root, draw):
    for name in ("left", "right"):
        own(root / name, draw)


def good_only(root, draw):
    draw(root / "normal", 12)


def mvtec(root, draw):
    draw(root / "nut" / "train" / "good", 8)
    draw(root / "nut" / "test" / "good", 3)
    draw(root / "nut" / "test" / "bent", 3)
    draw(root / "nut" / "ground_truth" / "bent", 3, mask=True)


def visa(root, draw):
    images = root / "candle" / "Data" / "Images"
    draw(images / "Normal", 8)
    draw(images / "Anomaly", 3)
    draw(root / "candle" / "Data" / "Masks" / "Anomaly", 3, mask=True)
    rows = ["object,split,label,image,mask"]
    for i in range(8):
        split = "train" if i < 5 else "test"
        rows.append(f"candle,{split},normal,candle/Data/Images/Normal/{i}.png,")
    for i in range(3):
        mask = f"candle/Data/Masks/Anomaly/{i}.png"
        rows.append(f"candle,test,anomaly,candle/Data/Images/Anomaly/{i}.png,{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows))


def visa_rearranged(root, draw):
    place = root / "1cls" / "candle"
    draw(place / "train" / "good", 8)
    draw(place / "test" / "good", 3)
    draw(place / "test" / "bad", 3)
    draw(place / "ground_truth" / "bad", 3, mask=True)


def tree(root, draw):
    for name in ("cats", "dogs"):
        draw(root / name, 30)


def imagenet(root, draw):
    for split, count in (("train", 6), ("val", 3)):
        for name in ("n01", "n02"):
            draw(root / split / name, count)


def contents(paths) -> set[str]:
    return {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize(
    "layout",
    [own, own_categories, good_only, mvtec, visa, visa_rearranged, tree, imagenet],
    ids=lambda layout: layout.__name__,
)
def test_pretraining_never_sees_what_is_tested_on(layout, tmp_path, draw):
    layout(tmp_path / "parts", draw)
    place = str(tmp_path / "parts")
    train, watched = tables(place, 4)
    table = load(place)
    assert set(train.path) == set(table.path[(table.split == "train") & (table.label == 0)])
    assert len(train) and (watched.label == 0).all() and (watched.split == "test").all()
    tested = evaluation.samples(place).query("split == 'test'")
    for seen in (set, contents):
        assert seen(train.path).isdisjoint(seen(tested.path))
        assert seen(train.path).isdisjoint(seen(watched.path))
    marked = {path for path in tested.mask_path if isinstance(path, str)}
    assert contents(train.path).isdisjoint(contents(marked))


def test_pretraining_never_sees_what_is_tested_on_with_real_cells():
    train, watched = tables("elpv", 50)
    tested = evaluation.samples("elpv").query("split == 'test'")
    assert len(train) == 1077 and contents(train.path).isdisjoint(contents(tested.path))
    assert set(watched.path) <= set(tested.path)
