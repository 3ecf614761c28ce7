"""Weight files, of encoders and of PaDiM, damaged in every way."""

import hashlib
import json
import struct
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spdlib.architectures import ARCHITECTURES, IMAGENET_NORM, Architecture
from spdlib.encoders import load_encoder, read_provenance, save_encoder
from spdlib.padim import PaDiM


def tiny_network():
    layers = (nn.Conv2d(3 if i == 0 else 2, 2, 3, 4 if i == 0 else 2, 1) for i in range(4))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """An architecture so small that hundreds of its files are read in a second."""
    record = Architecture(
        build=tiny_network, segments=(("0",), ("1",), ("2",), ("3",)), head=("4",),
        norm=IMAGENET_NORM, imagenet=lambda network: {}, padim_features=4, unet="",
    )  # fmt: skip
    monkeypatch.setitem(ARCHITECTURES, "tiny", record)


def encoder_file(path):
    return save_encoder(load_encoder("tiny"), path, {"method": "simsiam", "dataset": "parts"})


def padim_file(path):
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return PaDiM(load_encoder("tiny")).fit([images]).save(path)


def encoder_content(path):
    encoder = load_encoder("tiny", path)
    return encoder.provenance, encoder.network.state_dict()


def padim_content(path):
    model = PaDiM.load(path)
    about = (model.encoder.provenance, model.seed, model.count, model.image_size, model.grid)
    return about, model._tensors()


KINDS = {"encoder": (encoder_file, encoder_content), "padim": (padim_file, padim_content)}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    write, content = KINDS[request.param]
    return write(tmp_path / "whole.safetensors"), content


def split(file):
    """The header, parsed, and the bytes of the tensors."""
    (length,) = struct.unpack("<Q", file[:8])
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def join(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def flipped(file, start, end, rng, most=8):
    bad = bytearray(file)
    for at in rng.integers(start, end, rng.integers(1, most + 1)):
        bad[at] ^= 1 << rng.integers(8)
    return bytes(bad)


def same(first, second):
    return first[0] == second[0] and all(
        torch.equal(first[1][name], second[1][name]) for name in first[1] | second[1]
    )


def test_random_damage_is_named_or_does_no_harm(kind, tmp_path):
    path, content = kind
    file, expected = path.read_bytes(), content(path)
    header = len(file) - len(split(file)[1])
    rng, bad, loaded = np.random.default_rng(0), tmp_path / "bad.safetensors", 0
    ways = (
        lambda: file[: rng.integers(0, len(file))],
        lambda: flipped(file, 0, 8, rng, 1),
        lambda: flipped(file, 8, header, rng),
        lambda: flipped(file, 0, len(file), rng),
        lambda: file + rng.bytes(rng.integers(1, 64)),
        lambda: file[:8] + rng.bytes(len(file) - 8),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for trial in range(600):
            bad.write_bytes(ways[trial % len(ways)]())
            try:
                found = content(bad)
            except ValueError as error:
                assert "bad.safetensors" in str(error)
            else:
                assert same(found, expected)
                loaded += 1
    assert loaded < 60


def test_flipped_data_never_loads(kind, tmp_path):
    path, content = kind
    file, bad = path.read_bytes(), tmp_path / "bad.safetensors"
    header, rng = len(file) - len(split(file)[1]), np.random.default_rng(1)
    for _ in range(100):
        damaged = flipped(file, header, len(file), rng)
        if damaged != file:
            bad.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"bad\.safetensors: .* SHA-256 differs"):
                content(bad)


def test_the_digest_is_that_of_the_files_own_bytes(kind):
    header, data = split(kind[0].read_bytes())
    metadata = header.pop("__metadata__")
    expected = hashlib.sha256(metadata.get("provenance", metadata.get("config")).encode())
    dtypes = {"F32": "torch.float32", "I64": "torch.int64"}
    for name, tensor in sorted(header.items()):
        start, end = tensor["data_offsets"]
        expected.update(f"\n{name} {dtypes[tensor['dtype']]} {tensor['shape']}\n".encode())
        expected.update(data[start:end])
    assert metadata["sha256"] == expected.hexdigest()


def test_a_file_from_before_there_was_a_digest_is_read_with_a_warning(kind):
    path, content = kind
    expected, (header, data) = content(path), split(path.read_bytes())
    old = path.with_name("old.safetensors")  # tensors stay mapped to the file that was read
    del header["__metadata__"]["sha256"]
    old.write_bytes(join(header, data))
    with pytest.warns(UserWarning, match=r"old\.safetensors carries no digest"):
        assert same(content(old), expected)
    header["__metadata__"]["sha255"] = ""  # the digest's name is damaged
    old.write_bytes(join(header, data))
    with pytest.raises(ValueError, match=r"old\.safetensors: .* SHA-256 differs"):
        content(old)


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": "vgg"}, "encoder: unknown encoder 'vgg'; known: eff"),
        ({"encoder": None}, "encoder: input should be a valid string, not None"),
        ({"count": "6"}, "count: input should be a valid integer, not '6'"),
        ({"count": 1}, "count: input should be greater than or equal to 2, not 1"),
        ({"grid": [8]}, r"grid\.1: missing"),
        ({"grid": [2**40, 2**40]}, r"grid\.0: input should be less"),
        ({"grid": [2, 2]}, "of another shape: diagonal, mean, packed"),
        ({"n_features": 3}, "of another shape: channels, diagonal, mean, packed"),
        ({"n_features": 7}, "n_features: 7 of tiny's 6 channels"),
        ({"provenance": []}, "provenance: input should be an object"),
    ],
)
def test_metadata_that_are_not_what_they_should_be_are_named(changed, message, digest, tmp_path):
    path = padim_file(tmp_path / "model.safetensors")
    header, data = split(path.read_bytes())
    metadata = header["__metadata__"]
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | changed)
    if not digest:
        del metadata["sha256"]
    path.write_bytes(join(header, data))
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*{message}"):
        PaDiM.load(path)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "[" * 100_000, '{"method": "simsiam"}'])
def test_a_description_that_is_none_is_named(kind, text):
    path, content = kind
    header, data = split(path.read_bytes())
    key = (header["__metadata__"].keys() & {"provenance", "config"}).pop()
    header["__metadata__"][key] = text
    path.write_bytes(join(header, data))
    with pytest.raises(ValueError, match=r"whole\.safetensors: the metadata are not a"):
        content(path)


def test_tensors_that_do_not_fit_are_named(kind):
    path, content = kind
    metadata, tensors = split(path.read_bytes())[0]["__metadata__"], load_file(path)
    name = next(name for name in sorted(tensors) if name.endswith("0.weight"))
    for changed, message in (
        ({name: tensors[name].double()}, "of another dtype: "),
        ({name: tensors[name][:1]}, "of another shape: "),
        ({"other": torch.zeros(1)}, "unexpected: other"),
    ):
        save_file(tensors | changed, path, metadata)
        with pytest.raises(ValueError, match=rf"whole\.safetensors: .*{message}"):
            content(path)


def test_what_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="dataset: input should be a valid string, not 3"):
        save_encoder(load_encoder("tiny"), tmp_path / "encoder.safetensors", {"dataset": 3})
    path = save_encoder(load_encoder("tiny"), tmp_path / "e.safetensors", {"loss": float("nan")})
    assert np.isnan(read_provenance(path)["loss"]) and [*tmp_path.iterdir()] == [path]


def test_channels_that_are_none_are_named(tmp_path):
    path = padim_file(tmp_path / "model.safetensors")
    metadata, tensors = split(path.read_bytes())[0]["__metadata__"], load_file(path)
    del metadata["sha256"]
    for wrong in ([0, 1, 2, 6], [-1, 0, 1, 2], [0, 0, 1, 2], [1, 0, 2, 3]):
        save_file(tensors | {"channels": torch.tensor(wrong)}, path, metadata)
        with (
            pytest.warns(UserWarning, match="carries no digest"),
            pytest.raises(ValueError, match="its channels are not 4 of 6, ascending"),
        ):
            PaDiM.load(path)


def test_a_models_content_may_go_unchecked(tmp_path):
    path = padim_file(tmp_path / "model.safetensors")
    file = bytearray(path.read_bytes())
    file[-1] ^= 1
    path.write_bytes(file)
    with pytest.raises(ValueError, match="SHA-256 differs"):
        PaDiM.load(path)
    assert PaDiM.load(path, check=False).count == 6


def test_other_precisions_are_written_in_the_one_that_is_read(tmp_path):
    encoder = load_encoder("tiny")
    for dtype in (torch.bfloat16, torch.float64):
        path = save_encoder(encoder.to(dtype), tmp_path / "encoder.safetensors")
        again = load_encoder("tiny", path).network.state_dict()
        assert same(({}, again), ({}, encoder.float().network.state_dict()))
    assert read_provenance(path) == {"encoder": "tiny"}
