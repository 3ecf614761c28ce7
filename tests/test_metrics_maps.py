"""Maps on disk, in every layout, measured by the command line as by hand; bad ones named."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from PIL import Image

from spdlib import metrics
from spdlib.metrics import cli, maps
from spdlib.metrics.maps import write_map

SHAPE = (24, 30)
LAYOUTS = {
    "mvtec": ("{c}/test/{d}/{n}", "{c}/test/good/{n}", "{c}/ground_truth/{d}/{n}_mask.png"),
    "mvtec, no words": ("{c}/{d}/{n}", "{c}/good/{n}", "{c}/{d}/{n}_mask.png"),
    "visa": ("{c}/Anomaly/{n}", "{c}/Normal/{n}", "{c}/Data/Masks/Anomaly/{n}.png"),
    "visa, rearranged": ("{c}/test/bad/{n}", "{c}/test/good/{n}", "{c}/ground_truth/bad/{n}.png"),
    "own": ("{c}/anomaly/{d}/{n}", "{c}/normal/{n}", "{c}/masks/{d}/{n}.png"),
    "flat": ("{c}/{n}", "{c}/{n}", "{c}/{n}.png"),
}  # fmt: skip


def lay_out(folder, layout, category="", ending=".tiff", shape=SHAPE, seed=0):
    """Writes four anomalous and five normal maps with masks; returns them as arrays."""
    rng, made = np.random.default_rng(seed), []
    anomalous, normal, truth = LAYOUTS[layout]
    for number in range(9):
        mask = np.zeros(shape, bool)
        if number < 4:
            y, x = rng.integers(2, 15, 2)
            mask[y : y + 5, x : x + 6] = True
        values = (rng.gamma(4, 2, shape) + 3 * mask).astype(np.float32)
        made.append((values, mask))
        names = {"c": category, "d": ("cut", "hole")[number % 2], "n": f"{number:03}"}
        place = (anomalous if number < 4 else normal).format(**names).lstrip("/")
        write_map(folder / "maps" / (place + ending), values)
        if number < 4 or normal == anomalous:
            write_map(folder / "masks" / truth.format(**names).lstrip("/"), 255 * mask.view("u1"))
    return tuple(np.stack(part) for part in zip(*made, strict=True))


@pytest.mark.parametrize("categories", [[""], ["nut", "screw"]], ids=["one", "several"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_metrics_of_its_arrays(layout, categories, tmp_path):
    made = {name: lay_out(tmp_path, layout, name, seed=i) for i, name in enumerate(categories)}
    pairs = maps.find(tmp_path / "maps", tmp_path / "masks")
    rows = cli.measure(pairs, repeats=0).set_index(["category", "task", "metric"])
    for category, (values, masks) in made.items():
        pixels = metrics.pixel_metrics(values, masks)
        images = metrics.evaluate(masks.any((1, 2)), values.max((1, 2)))
        found = rows.loc[category or "maps"]
        assert found.loc[("segmentation", "AU-PRO"), "value"] == pytest.approx(pixels.aupro)
        assert found.loc[("segmentation", "AU-PR"), "value"] == pytest.approx(pixels.aupr)
        assert found.loc[("segmentation", "max F1"), "threshold"] == pixels.threshold
        assert found.loc[("detection", "AU-ROC"), "value"] == pytest.approx(images.auroc)
        assert ("detection", "AU-PRO") not in found.index


def test_masks_are_found_inside_a_whole_data_set(tmp_path):
    lay_out(tmp_path, "mvtec", "screw")
    for image in ("train/good/000.png", "test/good/000.png", "test/cut/000.png"):
        write_map(tmp_path / "masks/screw" / image, np.full(SHAPE, 90, np.uint8))
    expected = maps.find(tmp_path / "maps", tmp_path / "masks")
    for pair in expected.itertuples():
        assert (pair.mask is None) == ("good" in pair.path.parts)
    # One category's own folders do as well.
    inner = maps.find(tmp_path / "maps/screw/test", tmp_path / "masks/screw/ground_truth")
    assert inner.equals(expected)


@pytest.mark.parametrize("ending", [".npy", ".png"])
def test_the_command_line_measures_real_files(ending, tmp_path):
    values, masks = lay_out(tmp_path, "mvtec", "screw", ".npy")
    if ending == ".png":  # 16 bits, as exports have them
        values = (values * 1000).astype(np.uint16)
        for path in sorted((tmp_path / "maps").rglob("*.npy")):
            Image.fromarray((np.load(path) * 1000).astype(np.uint16)).save(path.with_suffix(".png"))
            path.unlink()
    lay_out(tmp_path, "mvtec", "nut", ending if ending == ".npy" else ".tiff", seed=1)
    json_file = tmp_path / "out" / "found.json"
    command = ["maps", "masks", "--json", json_file, "--repeats", "50", "--thresholds", "200",
               "--limit", "0.5"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "spdlib.metrics", *command], cwd=tmp_path, text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "segmentation, 200 thresholds" in done.stdout and "mean" in done.stdout
    content = json.loads(json_file.read_text())
    found = {(r["category"], r["task"], r["metric"]): r for r in content["rows"]}
    expected = metrics.pixel_metrics(values, masks, limit=0.5)
    one = found["screw", "segmentation", "AU-PRO"]
    assert one["value"] == pytest.approx(expected.aupro) and one["low"] < one["value"] < one["high"]
    assert found["screw", "segmentation", "max F1"]["threshold"] == expected.threshold
    means = {(mean["task"], mean["metric"]): mean["value"] for mean in content["means"]}
    both = [found[c, "detection", "AU-PR"]["value"] for c in ("nut", "screw")]
    assert means["detection", "AU-PR"] == pytest.approx(np.mean(both))


def test_200_thresholds_are_those_of_visas_script(tmp_path):
    lay_out(tmp_path, "flat", shape=(80, 90))
    values, masks = lay_out(tmp_path, "flat", shape=(80, 90))
    pairs = maps.find(tmp_path / "maps", tmp_path / "masks")
    rows = cli.measure(pairs, repeats=0, thresholds=40).set_index(["task", "metric"]).value
    found = values[masks].astype(float)
    levels = np.r_[np.percentile(found, np.linspace(100, 0, 20)),
                   np.linspace(found.max(), found.min(), 20),
                   values.min() - 1e-8, values.max() + 1e-8]  # fmt: skip
    points = [(0.0, 0.0, 1.0, 0.0)]
    for level in np.sort(levels)[::-1]:
        true, false = ((part > level).sum() for part in (values[masks], values[~masks]))
        precision = true / (true + false) if true + false else 1.0
        f1 = 2 * true / (2 * true + false + masks.sum() - true)
        points.append((false / (~masks).sum(), true / masks.sum(), precision, f1))
    false, true, precision, f1 = np.array(points).T
    coarse, exact = rows["segmentation, 40 thresholds"], rows["segmentation"]
    assert coarse["AU-ROC"] == pytest.approx(sk.auc(false, true), abs=1e-9)
    assert coarse["AU-PR"] == pytest.approx(sk.auc(true, precision), abs=1e-9)
    assert coarse["max F1"] == pytest.approx(f1.max(), abs=1e-9)
    for metric in ("AU-ROC", "AU-PR", "AU-PRO", "max F1"):
        assert 0 < abs(coarse[metric] - exact[metric]) < 0.05


def test_resized_maps_are_measured_at_the_size_of_their_masks(tmp_path):
    values, masks = lay_out(tmp_path, "mvtec")
    larger = masks.repeat(2, 1).repeat(2, 2)
    for number in range(4):
        (path,) = (tmp_path / "masks").rglob(f"{number:03}_mask.png")
        write_map(path, 255 * larger[number].view("u1"))
    pairs = maps.find(tmp_path / "maps", tmp_path / "masks")
    with pytest.raises(
        ValueError, match=r"000.tiff: the map is 30 x 24, its mask 60 x 48; --resize"
    ):
        cli.measure(pairs)
    rows = cli.measure(pairs, resize=True, repeats=0).set_index(["task", "metric"]).value
    upsampled = torch.nn.functional.interpolate(
        torch.tensor(values)[:, None], (48, 60), mode="bilinear", align_corners=False
    )
    expected = metrics.pixel_metrics(upsampled[:, 0], larger)
    assert rows["segmentation", "AU-ROC"] == pytest.approx(expected.auroc, abs=1e-4)
    assert rows["segmentation", "AU-PRO"] == pytest.approx(expected.aupro, abs=1e-3)
    images = metrics.evaluate(masks.any((1, 2)), values.max((1, 2)))
    assert rows["detection", "AU-ROC"] == pytest.approx(images.auroc)


def spoil(folder, how):
    first = folder / "maps/test/cut/000.tiff"
    match how:
        case "no mask":
            (folder / "masks/ground_truth/cut/000_mask.png").unlink()
        case "nan":
            write_map(first, np.full(SHAPE, np.nan, np.float32))
        case "broken":
            first.write_bytes(b"no image")
        case "colour":
            first.unlink()
            Image.new("RGB", SHAPE[::-1]).save(first.with_suffix(".png"))
        case "one class":
            for path in (folder / "masks").rglob("*.png"):
                write_map(path, np.zeros(SHAPE, np.uint8))
        case "empty":
            for path in (folder / "maps").rglob("*.tiff"):
                path.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no mask", r"000.tiff: there is no mask cut/000 in .*masks"),
        ("nan", r"000.tiff: 720 pixels are NaN or infinite"),
        ("broken", r"000.tiff: the map does not decode"),
        ("colour", r"000.png: one number a pixel is needed, not \(24, 30, 3\)"),
        ("one class", "maps: no mask holds an anomaly"),
        ("empty", r"maps holds no maps \(.tiff, .tif, .npy, .png\)"),
    ],
)
def test_bad_files_are_named_before_any_work(how, message, tmp_path, capsys, monkeypatch):
    lay_out(tmp_path, "mvtec")
    spoil(tmp_path, how)
    monkeypatch.setattr(cli, "count_pixels", None)
    assert cli.main([str(tmp_path / "maps"), str(tmp_path / "masks")]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_a_flat_map_without_a_mask_and_a_missing_folder_are_named(tmp_path):
    lay_out(tmp_path, "flat")
    (tmp_path / "masks/008.png").unlink()
    with pytest.raises(ValueError, match=r"008.tiff: there is no mask 008 .* or has a black mask"):
        maps.find(tmp_path / "maps", tmp_path / "masks")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        maps.find(tmp_path / "nowhere", tmp_path / "masks")
