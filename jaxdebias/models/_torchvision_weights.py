"""torchvision's ResNet weights for `models.resnet`: same names, transposed layouts, nothing skipped in silence."""

import json
import math
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # comes with jax
import numpy as np

from jaxdebias.contracts import ContractError, check_choice, check_finite, describe, expect
from jaxdebias.core import Params
from jaxdebias.files import one_line, read_arrays

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def read_safetensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: eight bytes of header length, a JSON header, the raw bytes.

    Raises:
      ContractError: not such a file, cut short, or of a dtype other than f64, f32, f16, bf16, i64, i32, u8 and bool.
    """
    try:
        raw = pathlib.Path(path).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length]) if length <= len(raw) - 8 else None
        header.pop("__metadata__", None)
        entries = {name: (entry["dtype"], entry["shape"], entry["data_offsets"]) for name, entry in header.items()}
    except OSError as error:
        raise ContractError(f"`{path}`: expected a safetensors file, got {one_line(error)}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ContractError(f"`{path}`: expected a safetensors file, got one without such a header") from None
    data = memoryview(raw)[8 + length :]
    arrays = {}
    for name, (dtype, shape, offsets) in entries.items():
        where = " ".join(name.split())[:100] or "an entry without a name"
        check_choice(f"dtype of {where}", dtype, _DTYPES)
        whole = _whole_numbers(shape) and _whole_numbers(offsets) and len(offsets) == 2
        expect(whole, where, "whole numbers as shape and as two offsets", f"{describe(shape)}, {describe(offsets)}")
        (start, end), size = offsets, math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        expect(start + size == end <= len(data), where, f"{size} bytes", f"{max(0, min(end, len(data)) - start)}")
        arrays[name] = np.frombuffer(data[start:end], _DTYPES[dtype]).reshape(shape)
    return arrays


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _read(source: str | pathlib.Path | Mapping[str, Any]) -> dict[str, np.ndarray]:
    if isinstance(source, Mapping):
        return {name: np.asarray(value) for name, value in source.items()}
    path = pathlib.Path(source)
    expect(path.is_file(), "weights", "a file", f"no file at {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    expect(
        path.suffix == ".npz",
        "weights",
        "a .safetensors or .npz file (write one with safetensors.torch.save_file(model.state_dict(), ...))",
        path.name,
    )
    return read_arrays("weights", path)


def _torch_name(path: tuple[str, ...]) -> str:
    """Where torchvision keeps a leaf of ours: ('params', 'layer2_0', 'downsample_conv', 'kernel') and so on."""
    *modules, leaf = path[1:]  # path[0] is the collection, params or batch_stats
    theirs = {"head": "fc", "downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
    names = [theirs.get(module, module.replace("_", ".")) for module in modules if module != "stem"]
    return ".".join([*names, _LEAVES[leaf]])


def load_resnet(source: str | pathlib.Path | Mapping[str, Any], params: Params, *, head: str = "keep") -> Params:
    """A torchvision ResNet's state dict as parameters of `models.resnet` of the same depth.

    Args:
      source: a `.safetensors` or `.npz` file, or a mapping from names to arrays. Names are torchvision's
        (`layer1.0.conv1.weight`, `bn1.running_mean`, `fc.weight`); timm's ResNets have the same. Floats of any width.
      params: parameters of the classifier to fill, from its `init`; they say what is expected.
      head: `keep` loads `fc` as well; `skip` leaves the head of `params` as it is, for other classes than the file's.

    Returns:
      New parameters, in the dtypes of `params`. The same pixels give the same logits as in PyTorch if the classifier's
      `input_mean` and `input_std` are those the weights were trained with (torchvision's: the defaults).

    Raises:
      ContractError: naming a missing, unexpected, mis-shaped or non-finite entry.
    """
    check_choice("head", head, ["keep", "skip"])
    arrays = {name: value for name, value in _read(source).items() if not name.endswith("num_batches_tracked")}
    expect("batch_stats" in params, "params", "those of a resnet with norm='batch'", ", ".join(params))
    if head == "skip":
        arrays = {name: value for name, value in arrays.items() if not name.startswith("fc.")}

    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [_torch_name(tuple(entry.key for entry in path)) for path, _ in leaves]
    wanted = [name for name in names if head == "keep" or not name.startswith("fc.")]
    missing, unexpected = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    expect(not missing, "weights", f"an entry {missing[:1]}", f"none ({len(missing)} of {len(wanted)} are missing)")
    expect(not unexpected, "weights", "only entries of this network", f"{len(unexpected)} more, {unexpected[:1]} first")

    filled = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if name not in arrays:  # the head that is to stay
            filled.append(leaf)
            continue
        value = arrays[name]
        if name.endswith(".weight") and value.ndim > 1:  # OIHW -> HWIO, [k d] -> [d k]
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        hint = "; head='skip' keeps the head" if name.startswith("fc.") else ""
        expect(value.shape == leaf.shape, name, f"shape {list(leaf.shape)} (layout of Flax)", describe(value) + hint)
        value = value.astype(np.float32)
        check_finite(name, value)
        filled.append(jnp.asarray(value, leaf.dtype))
    return jax.tree.unflatten(tree, filled)
