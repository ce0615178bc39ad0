"""A data set as its model sees it before the last layer: every row goes through the network once, however many splits,
pairs and questions it is part of.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import map_rows
from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array, Dataset, Params, Split

MOST_BYTES = 2**31
"""Spatial features that need more than this are not kept; whoever asks for maps then computes them again."""


class Embedded(NamedTuple):
    """The data set with features for x, and how to go on from there."""

    dataset: Dataset
    """As it was, but for x and twin, which are `[n d]` features."""
    split: Split
    """Features of features are themselves; the head is the model's."""
    spatial: np.ndarray | None
    """`[n h w c]` features of the test split at the layer of the maps, where that was asked for and is small enough."""
    repeated: Mapping[str, int]
    """Split -> rows of test that are in this split as well, input for input."""


def embed(
    split: Split, params: Params, dataset: Dataset, *, spatial: Split | None = None, batch_size: int = 256
) -> Embedded:
    """Computes the features of all splits and pairs.

    Args:
      split: the model cut before its last layer.
      params: the model's parameters.
      dataset: the data set.
      spatial: cut at the layer of the maps; its features of the test split come from the same pass.
      batch_size: rows at a time through the network.

    Raises:
      ContractError: features that are no vectors.
    """
    arrays = {("splits", name, "x"): np.asarray(batch.x) for name, batch in dataset.splits.items()}
    for name, batch in dataset.pairs.items():
        arrays |= {("pairs", name, "x"): np.asarray(batch.x), ("pairs", name, "twin"): np.asarray(batch.twin)}
    digests = {where: row_digests(x) for where, x in arrays.items()}
    test = "splits", "test", "x"
    place = {digest: row for row, digest in enumerate(digests[test])}
    chosen = []
    for where, of_rows in digests.items():
        for row, digest in enumerate(of_rows):
            if digest not in place:
                place[digest] = len(digests[test]) + len(chosen)
                chosen.append((where, row))
    z, kept = _pass(split.features, spatial, params, arrays[test], batch_size)
    if chosen:
        others = np.stack([arrays[where][row] for where, row in chosen])
        z = np.concatenate([z, _pass(split.features, None, params, others, batch_size)[0]])
    found = {where: z[[place[digest] for digest in of_rows]] for where, of_rows in digests.items()}
    repeated = repeated_rows({name: digests["splits", name, "x"] for name in dataset.splits})
    splits = {
        name: batch._replace(x=found["splits", name, "x"], mask=None, twin=None)
        for name, batch in dataset.splits.items()
    }
    pairs = {
        name: batch._replace(x=found["pairs", name, "x"], twin=found["pairs", name, "twin"], mask=None)
        for name, batch in dataset.pairs.items()
    }
    return Embedded(dataclasses.replace(dataset, splits=splits, pairs=pairs), Split(_same, split.head), kept, repeated)


def repeated_rows(digests: Mapping[str, list[bytes]]) -> dict[str, int]:
    """Split -> how many of its rows are in the test split too.

    Args:
      digests: split -> `row_digests` of its inputs.
    """
    test = set(digests["test"])
    return {name: sum(row in test for row in rows) for name, rows in digests.items() if name != "test"}


def row_digests(x: Array) -> list[bytes]:
    """One key per row, equal for equal rows.

    >>> a, b, c = row_digests(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    >>> a == c, a == b
    (True, False)
    """
    rows = np.ascontiguousarray(x)
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def _pass(
    features: Callable, spatial: Split | None, params: Params, x: Array, batch_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Features of the rows and, with `spatial`, those of its layer, which share the program of the trunk."""
    # Linen and most libraries want a batch; a trailing part of another size would compile again, so map_rows it is.
    x = jnp.asarray(x)
    if spatial is not None:
        like = jax.eval_shape(spatial.features, params, x[:1])
        if like.size * like.dtype.itemsize * len(x) > MOST_BYTES:
            spatial = None
    if spatial is None:
        z, kept = map_rows(features, params, x, batch_size=batch_size), None
    else:
        z, kept = map_rows(_both(features, spatial.features), params, x, batch_size=batch_size)
    expect(z.ndim == 2, "split.features", "vectors [n d] before the last layer", describe(z))
    return np.asarray(z), None if kept is None else np.asarray(kept)


@functools.cache
def _both(features: Callable, spatial: Callable) -> Callable:
    """Both features from one program, in which the compiler computes what they share once."""
    return lambda params, x: (features(params, x), spatial(params, x))


def _same(params: Params, z: Array) -> jax.Array:
    return jnp.asarray(z)
