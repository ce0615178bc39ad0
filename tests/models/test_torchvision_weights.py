"""The weight port, against a PyTorch ResNet of the same layout with random weights and running statistics."""

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.models import load_resnet, resnet
from jaxdebias.models._torchvision_weights import read_safetensors

IMAGES = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype(np.float32)


def blank(classifier):
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), IMAGES)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope="module")
def torch_weights(torch):
    """A narrow ResNet-18's state dict as NumPy arrays."""
    from oracles.torch_resnet import random_resnet

    return {name: value.numpy() for name, value in random_resnet(18, 5, width=8).state_dict().items()}


@pytest.mark.parametrize("depth", [18, 50])
def test_logits_agree_with_pytorch(depth, torch):
    from oracles.torch_resnet import random_resnet

    theirs = random_resnet(depth, 7)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((IMAGES - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        want = theirs(torch.from_numpy(normalised)).numpy()

    ours = resnet(depth=depth, classes=7)
    params = load_resnet({name: value.numpy() for name, value in theirs.state_dict().items()}, blank(ours))
    got = jax.jit(ours.apply)(params, IMAGES)
    assert want.std() > 0.05
    np.testing.assert_allclose(got, want, atol=1e-4)


def equal(ours, theirs):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, theirs)))


def test_files_and_mapping_give_the_same(torch_weights, tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    template = blank(resnet(classes=5, width=8))
    want = load_resnet(torch_weights, template)
    np.testing.assert_array_equal(
        want["params"]["layer2_0"]["downsample_conv"]["kernel"],
        torch_weights["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(want["batch_stats"]["stem"]["bn1"]["var"], torch_weights["bn1.running_var"])

    save_file(torch_weights, tmp_path / "w.safetensors", metadata={"format": "pt"})
    np.savez(tmp_path / "w.npz", **torch_weights)
    assert equal(load_resnet(tmp_path / "w.safetensors", template), want)
    assert equal(load_resnet(str(tmp_path / "w.npz"), template), want)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_of_safetensors(dtype, torch_weights, tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    stored = {name: value.astype(jax.numpy.dtype(dtype)) for name, value in torch_weights.items() if value.ndim}
    save_file(stored, tmp_path / "w.safetensors")
    for name, value in read_safetensors(tmp_path / "w.safetensors").items():
        assert value.dtype == stored[name].dtype
        np.testing.assert_array_equal(value.astype(np.float64), stored[name].astype(np.float64))
    params = load_resnet(tmp_path / "w.safetensors", blank(resnet(classes=5, width=8)))
    assert params["params"]["head"]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(params["params"]["head"]["bias"], stored["fc.bias"].astype(np.float32))


def test_head_of_other_width_is_refused_or_kept(torch_weights):
    template = blank(resnet(classes=2, width=8))
    template["params"]["head"]["bias"] += 3.0
    with pytest.raises(ContractError, match=r"`fc\.bias`: expected shape \[2\].*head='skip' keeps"):
        load_resnet(torch_weights, template)
    params = load_resnet(torch_weights, template, head="skip")
    np.testing.assert_array_equal(params["params"]["head"]["bias"], [3.0, 3.0])
    np.testing.assert_array_equal(params["params"]["stem"]["bn1"]["scale"], torch_weights["bn1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer3.1.bn2.running_var"), r"expected an entry \['layer3\.1\.bn2\.running_var'\]"),
        (lambda w: w.update({"layer5.0.conv1.weight": np.zeros(3)}), r"1 more, \['layer5\.0\.conv1\.weight'\]"),
        (
            lambda w: w.update({"conv1.weight": np.zeros((8, 3, 3, 3))}),
            r"`conv1\.weight`: expected shape \[7, 7, 3, 8\]",
        ),
        (lambda w: w.update({"bn1.bias": np.full(8, np.nan)}), r"`bn1\.bias`: expected finite values, got 8 of 8"),
    ],
)
def test_a_wrong_entry_is_named(change, message, torch_weights):
    weights = dict(torch_weights)
    change(weights)
    with pytest.raises(ContractError, match=message):
        load_resnet(weights, blank(resnet(classes=5, width=8)))


def test_wrong_files_and_networks_are_named(torch_weights, tmp_path):
    template = blank(resnet(classes=5, width=8))
    (tmp_path / "w.pth").write_bytes(b"pickle")
    (tmp_path / "w.safetensors").write_bytes(b"no header here")
    with pytest.raises(ContractError, match=r"\.safetensors or \.npz"):
        load_resnet(tmp_path / "w.pth", template)
    with pytest.raises(ContractError, match="expected a file"):
        load_resnet(tmp_path / "none.npz", template)
    with pytest.raises(ContractError, match="expected a safetensors file"):
        load_resnet(tmp_path / "w.safetensors", template)
    with pytest.raises(ContractError, match="norm='batch'"):
        load_resnet(torch_weights, blank(resnet(classes=5, width=8, norm="group")))


def test_a_file_cut_short_is_refused(torch_weights, tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    path = tmp_path / "w.safetensors"
    save_file(torch_weights, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ContractError, match="bytes"):
        read_safetensors(path)
