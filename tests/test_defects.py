"""Painted defects: exact masks, their sizes, and the same ones again."""

import os

import numpy as np
import pytest
from PIL import Image

from spdlib.datasets import elpv
from spdlib.datasets.defects import AREA, KINDS, VISIBLE, paint, paint_image
from spdlib.datasets.samples import SampleImages


@pytest.fixture(scope="module")
def normal():
    cells = elpv(seed=0)
    return cells[cells.label == 0].groupby("category").head(16)


@pytest.fixture(scope="module")
def painted(normal, tmp_path_factory):
    return paint(normal, tmp_path_factory.mktemp("painted") / "cells", seed=3)


def pixels(path):
    with Image.open(path) as image:
        return np.array(image).astype(int)


def test_the_mask_is_exactly_where_the_image_was_changed(normal, painted):
    areas = []
    for before, row in zip(normal.path, painted.itertuples(), strict=True):
        mask = pixels(row.mask_path)
        change = np.abs(pixels(row.path) - pixels(before))
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask > 0, change > 0)
        assert change[mask > 0].min() >= VISIBLE
        areas.append((mask > 0).mean())
    assert AREA[0] <= min(areas) and max(areas) <= AREA[1]
    assert max(areas) > 10 * min(areas), "sizes should differ widely"


def test_the_table_is_of_synthetic_anomalies(normal, painted):
    assert (painted.label == 1).all() and (painted.split == "test").all()
    assert list(painted.category) == list(normal.category)
    assert painted.defect.str.startswith("painted ").all()
    assert painted.defect.value_counts().to_dict() == dict.fromkeys(KINDS, 8)


def test_dark_and_bright_defects_are_as_many_and_the_shade_is_told_truly(normal, painted):
    counted = dict.fromkeys([(kind, sign) for kind in KINDS for sign in (-1, 1)], 0)
    for before, row in zip(normal.path, painted.itertuples(), strict=True):
        change = pixels(row.path) - pixels(before)
        signs = set(np.sign(change[change != 0]))
        assert signs == {-1 if row.shade == "dark" else 1}
        counted[row.defect, signs.pop()] += 1
    assert set(counted.values()) == {4}


@pytest.mark.parametrize("kind", KINDS)
def test_one_draw_has_the_same_contrast_in_both_shades(normal, kind):
    for seed, path in enumerate(normal.path[:8]):
        cell = pixels(path).astype(np.uint8)
        dark, bright = (
            paint_image(cell, kind, np.random.default_rng(seed), shade)
            for shade in ("dark", "bright")
        )
        assert (dark[2], bright[2]) == ("dark", "bright")
        np.testing.assert_array_equal(dark[1], bright[1])
        np.testing.assert_array_equal(dark[0].astype(int) + bright[0], 2 * cell.astype(int))


def test_every_defect_is_seen_after_the_crop(painted):
    assert all(sample["mask"].any() for sample in SampleImages(painted, size=64))


def test_painted_again_the_same_and_not_when_there(normal, painted, tmp_path):
    again = paint(normal, tmp_path / "again", seed=3)
    few = paint(normal.head(5), tmp_path / "few", seed=3)
    other = paint(normal.head(5), tmp_path / "other", seed=4)
    for a, b in zip(painted.path, again.path, strict=True):
        np.testing.assert_array_equal(pixels(a), pixels(b))
    for a, b, c in zip(painted.path, few.path, other.path, strict=False):
        np.testing.assert_array_equal(pixels(a), pixels(b))
        assert (pixels(a) != pixels(c)).any()
    made = os.stat(again.path[0]).st_mtime_ns
    paint(normal, tmp_path / "again", seed=3)
    assert os.stat(again.path[0]).st_mtime_ns == made
    paint(normal.head(5), tmp_path / "again", seed=5)
    assert len(list((tmp_path / "again").iterdir())) == 2


def test_the_default_folder_is_named_by_the_arguments(normal, tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path))
    paint(normal.head(1), seed=1)
    paint(normal.head(1), seed=1)
    paint(normal.head(1), seed=2)
    assert len(list((tmp_path / "painted").iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(48, 48), (120, 200, 3), (500, 380, 3)])
@pytest.mark.parametrize("value", [0, 30, 255])
def test_it_works_on_any_image(kind, shape, value):
    image = np.full(shape, value, np.uint8)
    for seed in range(3):
        changed, mask, shade = paint_image(image, kind, np.random.default_rng(seed))
        difference = (changed != image).reshape(*shape[:2], -1).any(2)
        np.testing.assert_array_equal(difference, mask)
        assert mask.any() and changed.shape == shape
        assert (changed <= image).all() if shade == "dark" else (changed >= image).all()


def test_a_failure_leaves_nothing_behind(normal, tmp_path):
    broken = normal.head(2).copy()
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken.iloc[1, 0] = str(tmp_path / "broken.png")
    with pytest.raises(ValueError, match="does not decode"):
        paint(broken, tmp_path / "out" / "cells")
    assert list((tmp_path / "out" / "cells").iterdir()) == []


def test_errors_name_what_is_wrong(normal, tmp_path):
    with pytest.raises(ValueError, match="painted crack"):
        paint(normal, tmp_path / "x", kinds=["hole"])
    with pytest.raises(ValueError, match="no normal samples"):
        paint(normal[normal.label == 1], tmp_path / "x")
