"""Counterfactual bias: how much a prediction changes when only the bias attribute does (FMD, Chen et al. 2023).

`pair_bias` and `pair_gap` are differentiable functions of probabilities, for influence and edits;
`counterfactual_bias` measures a model on pairs, with an interval.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.batching import predict_rows
from jaxdebias.contracts import (
    check_choice,
    check_finite,
    check_integers,
    check_key,
    check_labelled,
    check_logits,
    check_numbers,
    describe,
    expect,
    one_logit_hint,
    row_count,
)
from jaxdebias.core import Array, Batch, Key, Params
from jaxdebias.measure._design_effect import group_counts
from jaxdebias.measure._groups import units_in
from jaxdebias.measure._intervals import Interval, proportion_interval
from jaxdebias.measure._mean_intervals import mean_interval

KINDS = ("pair", "gap", "flip")


def true_class_probability(logits: Float[Array, "n k"], label: Int[Array, " n"]) -> Float[jax.Array, " n"]:
    """Softmax probability of the true class `[n]`.

    Args:
      logits: `[n k]`.
      label: `[n]` in 0..k-1; a label outside gives NaN.
    """
    check_labelled(logits, label)
    probability = jax.nn.softmax(jnp.asarray(logits), axis=-1)
    index = jnp.asarray(label)[:, None]
    return jnp.take_along_axis(probability, index, axis=-1, mode="fill", fill_value=jnp.nan)[:, 0]


def pair_bias(
    p: Float[Array, " n"], p_twin: Float[Array, " n"], *, weight: Float[Array, " n"] | None = None, smooth: float = 0.0
) -> Float[jax.Array, ""]:
    """Mean of `|p - p_twin|` over pairs: the bias of a counterfactual set (FMD, section 3).

    Args:
      p: `[n]` probability of the true class at x.
      p_twin: `[n]` the same at the twin.
      weight: `[n]`, how much each pair counts; None is 1 for all.
      smooth: 0 is the absolute value, with gradient 0 where p = p_twin; eps > 0 is `sqrt(difference^2 + eps^2)`,
        for a line search that needs a continuous gradient.

    >>> float(pair_bias(jnp.array([1.0, 0.5]), jnp.array([0.0, 0.75])))
    0.625
    """
    _check_pairs(p, p_twin, weight)
    return _mean(_absolute(jnp.asarray(p) - jnp.asarray(p_twin), smooth), weight)


def pair_gap(
    p: Float[Array, " n"], p_twin: Float[Array, " n"], *, weight: Float[Array, " n"] | None = None, smooth: float = 0.0
) -> Float[jax.Array, ""]:
    """`|mean p - mean p_twin|`, for matched pairs of different individuals; arguments as in `pair_bias`.

    Two individuals differ in more than the attribute, so the difference of one pair is no bias, but that of the means
    is: it is the soft equal opportunity difference of the label that the pairs share.

    >>> float(pair_gap(jnp.array([1.0, 0.5]), jnp.array([0.0, 0.75])))
    0.375
    """
    _check_pairs(p, p_twin, weight)
    return _absolute(_mean(jnp.asarray(p) - jnp.asarray(p_twin), weight), smooth)


def flip_rate(logits: Float[Array, "n k"], logits_twin: Float[Array, "n k"]) -> Float[jax.Array, ""]:
    """Share of pairs whose predicted class changes with the attribute.

    Args:
      logits: `[n k]` at x, two classes or more.
      logits_twin: `[n k]` at the twin.

    >>> float(flip_rate(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.0, 1.0], [0.0, 2.0]])))
    0.5
    """
    for name, value in (("logits", logits), ("logits_twin", logits_twin)):
        check_numbers(name, value, "n k")
        expect(
            np.shape(value)[1] >= 2, name, "two classes or more", describe(value) + one_logit_hint(value, len(value))
        )
    same = np.shape(logits_twin) == np.shape(logits) and np.size(logits) > 0
    expect(same, "logits_twin", f"the shape of logits, {list(np.shape(logits))}, not empty", describe(logits_twin))
    return jnp.mean(jnp.argmax(jnp.asarray(logits), axis=-1) != jnp.argmax(jnp.asarray(logits_twin), axis=-1))


def counterfactual_bias(
    apply_fn: Callable[[Params, Array], jax.Array],
    params: Params,
    pairs: Batch,
    *,
    key: Key,
    kind: Literal["pair", "gap", "flip"] = "pair",
    batch_size: int = 1024,
    level: float = 0.95,
) -> Interval:
    """The counterfactual bias of a model on pairs (x, twin) of one label each, with its interval.

    Args:
      apply_fn: (params, x) -> logits `[n k]`, evaluation mode. Pass the same function object to compile once.
      params: of the model.
      pairs: a batch with `twin`; label, unit and weight are used, rows of weight 0 do not count.
      key: randomness of the intervals of means.
      kind: "pair": `pair_bias`, for true counterfactuals; "gap": `pair_gap`, for matched pairs; "flip": `flip_rate`.
      batch_size: rows that the model sees at a time.
      level: confidence level.

    Raises:
      ContractError: if there are no pairs, shapes do not fit, or the logits are not finite.
    """
    expect(pairs.twin is not None, "pairs.twin", "the counterfactual of x", None)
    expect(np.ndim(pairs.label) == 1 and len(pairs.label) > 0, "pairs", "at least one pair", describe(pairs.label))
    for name in ("x", "twin"):
        check_numbers(f"pairs.{name}", getattr(pairs, name), "n ...")
    expect(np.shape(pairs.twin) == np.shape(pairs.x), "pairs.twin", describe(pairs.x), describe(pairs.twin))
    logits, logits_twin = (predict_rows(apply_fn, params, x, batch_size=batch_size) for x in (pairs.x, pairs.twin))
    return counterfactual_bias_of_logits(
        logits,
        logits_twin,
        pairs.label,
        key=key,
        kind=kind,
        unit=pairs.unit,
        weight=pairs.weight,
        level=level,
    )


def counterfactual_bias_of_logits(
    logits: Float[Array, "n k"],
    logits_twin: Float[Array, "n k"],
    label: Int[Array, " n"],
    *,
    key: Key,
    kind: Literal["pair", "gap", "flip"] = "pair",
    unit: Int[Array, " n"] | None = None,
    weight: Float[Array, " n"] | None = None,
    level: float = 0.95,
) -> Interval:
    """`counterfactual_bias` from the logits of both sides of each pair, for models that are called elsewhere.

    The interval of "pair" is `mean_interval` of |p - p_twin|; of "gap", that of the signed difference of means, cut at
    0; of "flip", the exact one of a proportion (`proportion_interval`). All allow for pairs that share a unit.
    """
    check_choice("kind", kind, KINDS)
    check_key("key", key)
    n = row_count("label", label)
    check_logits(logits, n)
    check_logits(logits_twin, n, classes=logits.shape[1], what="logits_twin")
    check_integers("label", label, n, 0, logits.shape[1])
    if weight is not None:
        check_numbers("weight", weight, "n")
        check_finite("weight", weight)
    counts = np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32)
    expect(counts.shape == (n,), "weight", f"float [n={n}]", describe(counts))
    expect(bool((counts >= 0).all() and counts.any()), "weight", "no negative weight, not all 0", describe(counts))
    if unit is not None:
        check_integers("unit", unit, n, 0, None)
    if kind == "flip":
        expect(bool(np.isin(counts, (0, 1)).all()), "weight", "0 or 1 for a flip rate", describe(counts))
        flipped = np.argmax(logits, axis=-1) != np.argmax(logits_twin, axis=-1)
        group = np.where(counts > 0, 0, -1)
        x, trials = (sums.item() for sums in group_counts(flipped, group, groups=1, unit=unit, level=level))
        return proportion_interval(x, trials, level=level)._replace(n=int(units_in(group, unit, 1)[0]))
    change = np.asarray(true_class_probability(logits, label) - true_class_probability(logits_twin, label))
    shared = {"key": key, "unit": unit, "weight": counts, "level": level}
    if kind == "pair":
        return mean_interval(np.abs(change), bounds=(0.0, 1.0), **shared)
    # The sign is fixed by the data, so that the interval can reach 0.
    sign = 1.0 if np.sum(counts * change) >= 0 else -1.0
    signed = mean_interval(change * sign, bounds=(-1.0, 1.0), **shared)
    return signed._replace(low=max(signed.low, 0.0), high=max(signed.high, 0.0))


def _check_pairs(p: Array, p_twin: Array, weight: Array | None) -> None:
    """Both sides and the weights are `[n]`: a column beside a row would broadcast to `[n n]`."""
    expect(np.ndim(p) == 1, "p", "an array [n]", describe(p))
    for name, value in (("p", p), ("p_twin", p_twin), ("weight", weight)):
        expect(value is None or np.shape(value) == np.shape(p), name, f"an array {list(np.shape(p))}", describe(value))
        if value is not None or name == "p_twin":
            check_numbers(name, value, "n")


def _absolute(value: jax.Array, smooth: float) -> jax.Array:
    # Not jnp.abs: its gradient at 0 is 1 in current JAX.
    return value * jnp.sign(value) if smooth == 0.0 else jnp.sqrt(value**2 + smooth**2)


def _mean(value: jax.Array, weight: Array | None) -> jax.Array:
    if weight is None:
        return jnp.mean(value)
    weight = jnp.asarray(weight)
    return jnp.sum(value * weight) / jnp.sum(weight)
