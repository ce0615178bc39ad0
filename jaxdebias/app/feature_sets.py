"""Feature matrices and a last layer in `.npz` files, checked and sorted into sets.

Features, `[n d]` float each, with labels `[n]` int, 0..k-1:

| array | what it is |
| --- | --- |
| `train`, `train_label` | the training set, for the curvature of its objective; not needed with a saved factor or DFR |
| `edit`, `edit_twin`, `edit_label` | held-out pairs that make the step: the aligned and the conflicting side |
| `accept`, `accept_label` | held-out examples on which candidates are judged, the attribute independent of the label |
| `accept_pairs`, `accept_twin`, `accept_pairs_label` | held-out pairs for the same purpose, as those of `edit` |
| `test`, `test_label`; `test_pairs`, `test_twin`, `test_pairs_label` | only ever reported; either or both may lack |
| `NAME_attribute` | `[n]` int, of train, edit, accept, accept_pairs, test or test_pairs; -1 unknown |

Where `accept_pairs` is missing, `accept` and `accept_twin` are the pairs. Where one of `accept` and `accept_pairs` is
missing, both sides of the pairs are the examples, on which the attribute says nothing. The same holds for `test`.
Without any test array the acceptance sets are reported, and a finding says that this is optimistic. The attribute of
the reported examples gives their groups; the attributes of the others are checked and not used.

The head: one matrix, `[d k]` or `[k d]` (PyTorch's), and at most one vector `[k]`, under any names: the side that has d
entries is the features'; a square matrix is `[d k]` if its name ends in `kernel` and `[k d]` if in `weight`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.batching import unpair
from jaxdebias.contracts import check_choice, check_finite, check_integers, describe, expect
from jaxdebias.core import Batch, Params

SETS = {
    "train": ("train", None, "train_label"),
    "edit": ("edit", "edit_twin", "edit_label"),
    "accept": ("accept", None, "accept_label"),
    "accept_pairs": ("accept_pairs", "accept_twin", "accept_pairs_label"),
    "test": ("test", None, "test_label"),
    "test_pairs": ("test_pairs", "test_twin", "test_pairs_label"),
}
"""Set -> its arrays: features, twins, labels."""


class HeadFile(NamedTuple):
    """A last layer as it lies in its file, and the same as parameters."""

    arrays: dict[str, np.ndarray]
    kernel: str
    """The name of the matrix."""
    bias: str | None
    """The name of the vector."""
    transposed: bool
    """The matrix is `[k d]`."""

    @property
    def params(self) -> Params:
        """`{"head": {"kernel" [d k], "bias" [k]}}`, float32."""
        kernel = self.arrays[self.kernel]
        head = {"kernel": jnp.asarray((kernel.T if self.transposed else kernel).astype(np.float32))}
        if self.bias is not None:
            head["bias"] = jnp.asarray(self.arrays[self.bias].astype(np.float32))
        return {"head": head}

    def with_params(self, params: Params) -> dict[str, np.ndarray]:
        """The arrays with other values, in the shapes and dtypes of the file."""
        kernel = np.asarray(params["head"]["kernel"])
        new = {self.kernel: kernel.T if self.transposed else kernel}
        if self.bias is not None:
            new[self.bias] = np.asarray(params["head"]["bias"])
        out = {name: np.ascontiguousarray(new[name].astype(old.dtype)) for name, old in self.arrays.items()}
        check_finite("edited head", out)
        return out


class FeatureSets(NamedTuple):
    """The sets of a features file as batches of tables, after the rules of this module for what is missing."""

    train: Batch | None
    edit: Batch
    accept: Batch
    accept_pairs: Batch
    test: Batch | None
    test_pairs: Batch | None


def feature_sets(
    features: Mapping[str, np.ndarray], head: Mapping[str, np.ndarray], *, needs_train: bool = True
) -> tuple[FeatureSets, HeadFile]:
    """Checks the arrays of both files and sorts them into sets.

    Raises:
      ContractError: in one line, naming the array, what was expected and what was found.
    """
    present = ", ".join(sorted(features)) or "none"
    known = {name for names in SETS.values() for name in names if name} | {f"{name}_attribute" for name in SETS}
    for name in features:
        check_choice("features", name, sorted(known))
    for name in ("edit", "edit_twin", "edit_label", *(("train", "train_label") if needs_train else ())):
        hint = ", or a saved factor" if name.startswith("train") else ""
        expect(name in features, "features", f"an array {name}{hint}", present)
    wide = describe(features["edit"])
    expect(features["edit"].ndim == 2 and features["edit"].shape[1] > 0, "edit", "float [m d]", wide)
    d = features["edit"].shape[1]
    found = find_head_arrays(head, d)
    k = found.params["head"]["kernel"].shape[1]
    arrays = dict(features)
    for name in ("accept", "test"):
        own = any(f"{name}_pairs{end}" in arrays for end in ("", "_label", "_attribute"))
        if not own and f"{name}_twin" in arrays:
            for old, new in (
                (name, f"{name}_pairs"),
                (f"{name}_label", f"{name}_pairs_label"),
                (f"{name}_attribute", f"{name}_pairs_attribute"),
            ):
                if old in arrays:
                    arrays[new] = arrays.pop(old)
    paired = any(name.startswith("accept_pairs") for name in arrays)
    expect(paired, "features", "an array accept_pairs with accept_twin, or accept with accept_twin", present)
    made = {name: _batch(name, arrays, d, k, present) for name in SETS}
    for name in ("accept", "test"):
        if made[name] is None and made[f"{name}_pairs"] is not None:
            pairs = made[f"{name}_pairs"]
            made[name] = unpair(pairs)._replace(unit=np.tile(np.arange(len(pairs.label), dtype=np.int32), 2))
    return FeatureSets(**made), found


def find_head_arrays(arrays: Mapping[str, np.ndarray], d: int) -> HeadFile:
    """Which array of a file is the kernel, which the bias, and which way round the kernel lies."""
    found = ", ".join(f"{name} {describe(array)}" for name, array in arrays.items()) or "none"
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    vectors = [name for name, array in arrays.items() if array.ndim == 1]
    good = len(matrices) == 1 and len(vectors) <= 1 and len(arrays) == len(matrices) + len(vectors)
    expect(good, "head", "one matrix and at most one vector", found)
    for name, array in arrays.items():
        expect(np.issubdtype(array.dtype, np.floating), f"head {name}", "float", describe(array))
        check_finite(f"head {name}", array.astype(np.float32))
    kernel, bias = matrices[0], vectors[0] if vectors else None
    rows, columns = arrays[kernel].shape
    expect(d in (rows, columns), "head", f"a matrix with d={d} features on one side, as `edit` has", found)
    transposed = rows != d
    if rows == columns:
        side = next((side for end, side in (("kernel", False), ("weight", True)) if kernel.lower().endswith(end)), None)
        expect(
            side is not None, "head", "a name that ends in kernel ([d k]) or weight ([k d]) for a square matrix", found
        )
        transposed = side
    k = rows if transposed else columns
    expect(k >= 2, "head", "at least two classes (a single logit z is the two classes 0 and z)", found)
    expect(bias is None or arrays[bias].shape == (k,), "head", f"a vector [k={k}]", found)
    return HeadFile(dict(arrays), kernel, bias, transposed)


def _batch(name: str, arrays: Mapping[str, np.ndarray], d: int, k: int, present: str) -> Batch | None:
    x_name, twin_name, label_name = SETS[name]
    attribute_name = f"{name}_attribute"
    if x_name not in arrays:
        orphan = next((other for other in (twin_name, label_name, attribute_name) if other in arrays), None)
        expect(orphan is None, "features", f"an array {x_name} to go with {orphan}", present)
        return None
    for needed in (label_name, *((twin_name,) if twin_name else ())):
        expect(needed in arrays, "features", f"an array {needed} to go with {x_name}", present)
    x, label = _features(x_name, arrays[x_name], d), arrays[label_name]
    n = len(x)
    twin = None
    if twin_name:
        twin = _features(twin_name, arrays[twin_name], d)
        expect(len(twin) == n, twin_name, f"float [m={n}, d={d}], a row for each of {x_name}", describe(twin))
    check_integers(label_name, label, n, 0, k)
    attribute = arrays.get(attribute_name, np.full(n, -1, np.int32))
    check_integers(attribute_name, attribute, n, -1, None)
    return Batch(x=x, label=label.astype(np.int32), attribute=attribute.astype(np.int32), twin=twin)


def _features(name: str, x: np.ndarray, d: int) -> Float[np.ndarray, "n d"]:
    good = x.ndim == 2 and x.shape[1] == d and len(x) > 0 and np.issubdtype(x.dtype, np.floating)
    expect(good, name, f"float [n, d={d}], at least one row", describe(x))
    x = x.astype(np.float32)
    check_finite(name, x)
    return x
