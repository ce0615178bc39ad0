"""Counterfactual partners for real samples: another sample of the same label, another attribute, otherwise alike.

Alike means: least Hamming distance over the *other* annotated attributes. Never match in the features of the model that
is to be measured or repaired. Such a model has learned to tell samples apart by the bias attribute, so what it puts
close together are the samples on which it does not depend on it: the pairs then show hardly any bias, and an edit with
them changes next to nothing. Metadata, or an independent model's embedding turned into bits, do not have this flaw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.contracts import check_integers, describe, expect
from jaxdebias.core import Array, Batch, take


class Matches(NamedTuple):
    """Pairs of samples, in ascending order of `row`."""

    row: Int[np.ndarray, " m"]
    partner: Int[np.ndarray, " m"]
    distance: Int[np.ndarray, " m"]
    """Bits in which the two differ."""


def nearest_partners(
    bits: Bool[Array, "n j"],
    label: Int[Array, " n"],
    attribute: Int[Array, " n"],
    *,
    rows: Int[Array, " r"] | None = None,
    partners: Int[Array, " q"] | None = None,
    once: bool = False,
    block: int = 2**24,
) -> Matches:
    """For each sample, the sample of the same label and another attribute that differs in the fewest bits.

    Exact, and the result does not depend on `block`. With repetition every row gets its nearest partner, of equally
    near ones that of the lower index. With `once` pairs are formed greedily, the nearest first, of equally near ones
    that of the lower row and then the lower partner; rows are left out when the partners are used up.

    Args:
      bits: `[n j]`, the other attributes; see `one_hot` and `ordered` for those that are not binary.
      label: `[n]`. Samples of unknown attribute (-1) are left out.
      attribute: `[n]`. Samples of unknown attribute (-1) are left out.
      rows: the samples that want a partner; None: all.
      partners: the samples that may be one; None: all.
      once: use each partner at most once. With repetition a few typical samples may serve as partner of many.
      block: distances held in memory at a time, 4 bytes each (but at least those of one row).

    Raises:
      ContractError: malformed arrays, or rows for which no sample of their label has another attribute.

    >>> bits = np.array([[0, 0], [0, 1], [1, 1], [1, 1]], bool)
    >>> nearest_partners(bits, np.zeros(4, int), np.array([0, 0, 1, 1]), rows=np.array([0, 1])).partner.tolist()
    [2, 2]
    >>> found = nearest_partners(bits, np.zeros(4, int), np.array([0, 0, 1, 1]), rows=np.array([0, 1]), once=True)
    >>> found.partner.tolist(), found.distance.tolist()
    ([3, 2], [2, 1])
    """
    bits, label, attribute = np.asarray(bits), np.asarray(label), np.asarray(attribute)
    n = len(bits)
    check_integers("label", label, n, 0, None)
    check_integers("attribute", attribute, n, -1, None)
    expect(block >= 1, "block", "at least 1", block)
    rows, partners = (_known(name, chosen, attribute) for name, chosen in (("rows", rows), ("partners", partners)))

    sign = np.where(bits, np.float32(1), np.float32(-1))
    found = []
    for y in np.unique(label[rows]):
        r, q = rows[label[rows] == y], partners[label[partners] == y]
        for a in np.unique(attribute[r]):
            there = bool((attribute[q] != a).any())
            expect(there, "partners", f"a sample of label {y} with another attribute than {a}", "none")
        pick = _each_once if once else _nearest
        found.append(pick(sign, attribute, r, q, block))
    if not found:
        found = [Matches(*(np.zeros(0, np.int64) for _ in Matches._fields))]
    joined = Matches(*(np.concatenate(field) for field in zip(*found, strict=True)))
    order = np.argsort(joined.row)
    return Matches(*(field[order] for field in joined))


def matched_pairs(
    split: Batch,
    bits: Bool[Array, "n j"],
    aligned: Bool[np.ndarray, "k a"],
    *,
    farthest: int | None = None,
    balanced: bool = False,
    per_label: int | None = None,
) -> Batch:
    """Pairs of one split for a `Dataset` of pairing "matched": x in an aligned cell, twin in a conflicting one.

    No sample is in two pairs. Where every sample of both sides is paired, how they are paired does not change a gap of
    means; it is `farthest` that makes both sides alike in the other attributes.

    Args:
      split: the samples; those of unknown attribute are left out.
      bits: `[n j]`, their other attributes.
      aligned: the cells where the attribute goes with the label.
      farthest: keep only pairs that differ in at most so many bits; 0: equal in all other attributes.
      balanced: give every label as many pairs as the label with the fewest has.
      per_label: keep at most so many pairs of each label. Here and with `balanced` the closest stay.

    Raises:
      ContractError: no aligned sample, a label with aligned samples but no conflicting one, or no pair that is close
        enough.
    """
    label, attribute = np.asarray(split.label), np.asarray(split.attribute)
    known = attribute >= 0
    is_aligned = aligned[label, attribute]
    found = nearest_partners(
        bits,
        label,
        attribute,
        rows=np.flatnonzero(known & is_aligned),
        partners=np.flatnonzero(known & ~is_aligned),
        once=True,
    )
    expect(len(found.row) > 0, "split", "samples in an aligned cell", "none")
    if farthest is not None:
        found = Matches(*(field[found.distance <= farthest] for field in found))
        expect(len(found.row) > 0, "farthest", f"pairs that differ in at most {farthest} bits", "none")
    if balanced or per_label is not None:
        expect(per_label is None or per_label >= 1, "per_label", "at least 1", per_label)
        counts = np.bincount(label[found.row])
        most = min([int(counts[counts > 0].min())] * balanced + [per_label] * (per_label is not None))
        closest = np.lexsort((found.row, found.distance))
        of_label = (closest[label[found.row[closest]] == y][:most] for y in np.flatnonzero(counts))
        kept = np.sort(np.concatenate(list(of_label)))
        found = Matches(*(field[kept] for field in found))
    return take(split, found.row)._replace(twin=split.x[found.partner])


def one_hot(values: np.ndarray) -> Bool[np.ndarray, "n j"]:
    """Bits of categories, one per distinct value, so that two different values are 2 bits apart.

    >>> one_hot(np.array(["b", "a", "b"])).astype(int).tolist()
    [[0, 1], [1, 0], [0, 1]]
    """
    values = np.asarray(values)
    return values[:, None] == np.unique(values)


def ordered(values: np.ndarray, edges: np.ndarray | Sequence[int | float]) -> Bool[np.ndarray, "n j"]:
    """Bits of numbers, one per edge that the value reaches, so that bins are as many bits apart as bins.

    >>> ordered(np.array([5, 20, 70]), (13, 20, 60)).astype(int).tolist()
    [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return np.asarray(values)[:, None] >= np.asarray(edges)


def _known(what: str, chosen: Array | None, attribute: np.ndarray) -> np.ndarray:
    """Ascending rows without repetition and without those of unknown attribute."""
    if chosen is None:
        chosen = np.arange(len(attribute))
    chosen = np.asarray(chosen)
    expect(chosen.ndim == 1 and np.issubdtype(chosen.dtype, np.integer), what, "row numbers", describe(chosen))
    check_integers(what, chosen, len(chosen), 0, len(attribute))
    return np.unique(chosen[attribute[chosen] >= 0])


def _distances(sign: np.ndarray, attribute: np.ndarray, rows: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Hamming distances `[r q]` float32, exact integers; infinite between samples of one attribute."""
    # s . t of signs is (equal bits - different bits).
    distance = (sign.shape[1] - sign[rows] @ sign[partners].T) / 2
    distance[attribute[rows][:, None] == attribute[partners]] = np.inf
    return distance


def _nearest(sign: np.ndarray, attribute: np.ndarray, rows: np.ndarray, partners: np.ndarray, block: int) -> Matches:
    partner, distance = [], []
    step = max(1, block // len(partners))
    for start in range(0, len(rows), step):
        found = _distances(sign, attribute, rows[start : start + step], partners)
        best = found.argmin(axis=1)  # the first, and partners ascend
        partner.append(partners[best])
        distance.append(found[np.arange(len(best)), best].astype(np.int64))
    return Matches(rows, np.concatenate(partner), np.concatenate(distance))


def _each_once(sign: np.ndarray, attribute: np.ndarray, rows: np.ndarray, partners: np.ndarray, block: int) -> Matches:
    # No free partner of row i is nearer than bound[i]. Rows are taken up at the least bound; as partners only become
    # fewer, a row that finds none there moves to a higher bound and never has to look back.
    bound = np.zeros(len(rows), np.float32)
    partner = np.full(len(rows), -1)
    free = np.ones(len(partners), bool)
    while np.isfinite(level := bound[partner < 0].min(initial=np.inf)):
        waiting = np.flatnonzero((partner < 0) & (bound == level))
        columns = np.flatnonzero(free)
        step = max(1, block // max(1, len(columns)))
        for start in range(0, len(waiting), step):
            part = waiting[start : start + step]
            distance = _distances(sign, attribute, rows[part], partners[columns])
            for i, of_row in zip(part, distance, strict=True):
                of_row = np.where(free[columns], of_row, np.inf)
                bound[i] = of_row.min(initial=np.inf)
                if bound[i] == level:
                    chosen = columns[of_row.argmin()]
                    partner[i], free[chosen] = chosen, False
    got = partner >= 0
    return Matches(rows[got], partners[partner[got]], bound[got].astype(np.int64))
