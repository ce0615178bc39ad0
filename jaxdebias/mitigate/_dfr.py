"""Deep Feature Reweighting: fit the last layer again, on held-out data in which the shortcut does not hold.

Features stay frozen, are standardised, and a multinomial logistic regression is fitted on them. Of several penalties,
the one that does best on `accept` is kept. Source: DFR (Kirichenko et al., ICLR 2023), which balances groups by
subsampling, penalises with L1 and averages the heads of 20 subsamples:

    DfrConfig(penalty_kind="l1", balance_by="subsamples", averaged=20, select="worst_group")

The default is ours: groups balanced by weights, which is the same objective in expectation without throwing examples
away, and an L2 penalty, whose minimum Newton's method finds in a few steps. The paper chooses the penalty on one half
of the held-out set and then fits on all of it; here `accept` chooses and is never fitted on.

It is the baseline that every edit of a last layer has to be compared with: it needs the same held-out examples.
"""

import functools
import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdebias.contracts import (
    check_choice,
    check_counted,
    check_finite,
    check_integers,
    check_key,
    check_type,
    expect,
    row_count,
)
from jaxdebias.core import Array, Batch, Classifier, Key, Params, RepairSets, Split, group_of
from jaxdebias.explain.influence._objective import AffineHead, HeadProblem, head_logits, head_problem
from jaxdebias.explain.influence._refit import refit
from jaxdebias.mitigate._last_layer import as_split, frozen_features, last_layer, needed


@dataclass(frozen=True, kw_only=True)
class DfrConfig:
    penalties: tuple[float, ...] = (100.0, 10.0, 1.0)
    """Candidates c for the regulariser, which stands beside the SUM of losses on standardised features and counts the
    bias too: c / 2 |theta|^2 for L2, c |theta|_1 for L1 (scikit-learn's 1 / C)."""
    penalty_kind: str = "l2"
    """`l2`, fitted by Newton's method, or `l1`, fitted by accelerated proximal gradient: many weights are then 0."""
    balance: bool = True
    """Give every (label, attribute) group of the edit set the same total weight, where attributes are known."""
    balance_by: str = "weights"
    """`weights`, or `subsamples`: every group is cut, at random, to the size of the smallest one, as in the paper."""
    averaged: int = 1
    """So many subsamples are fitted and their heads averaged. More than 1 needs balance_by="subsamples"."""
    select: str = "accuracy"
    """`accuracy` or `worst_group`: what chooses the penalty on `accept`. The latter needs groups of some size."""
    tolerance: float = 1e-3
    """Of the fit: for L2 on the gradient norm of the SUM objective; for L1 on how far the optimality conditions are
    violated at worst, as a share of the penalty."""
    max_steps: int = 20_000
    """Of the L1 fit; `info.converged` says whether they sufficed."""

    def __post_init__(self):
        check_choice("penalty_kind", self.penalty_kind, ("l2", "l1"))
        check_choice("balance_by", self.balance_by, ("weights", "subsamples"))
        one = self.averaged == 1 or (self.averaged > 1 and self.balance and self.balance_by == "subsamples")
        expect(one, "averaged", "1, or more with balance and balance_by='subsamples'", self.averaged)
        expect(self.max_steps >= 1, "max_steps", "at least 1", self.max_steps)
        check_choice("select", self.select, ("accuracy", "worst_group"))
        good = len(self.penalties) > 0 and min(self.penalties) > 0
        expect(good, "penalties", "one or more, all positive", self.penalties)


class DfrInfo(NamedTuple):
    penalty: float
    """The chosen one of `config.penalties`."""
    scores: tuple[float, ...]
    """Of each penalty on `accept`, by `config.select`."""
    gradient_norms: tuple[float, ...]
    """Of each fit, at its end, for the SUM objective; for L1 of its smallest subgradient. Of several subsamples, the
    largest."""
    accuracy_before: float
    """On `accept`."""
    accuracy_after: float
    seconds: float
    converged: bool = True
    """Every fit reached `config.tolerance`."""
    rows: int = 0
    """Of the edit set that one fit sees: fewer than there are where groups are cut to the smallest."""
    zeros: float = 0.0
    """Share of the kernel's entries that are exactly 0."""


def dfr(
    key: Key,
    model: Classifier | Split,
    params: Params,
    sets: RepairSets,
    config: DfrConfig = DfrConfig(),
    *,
    batch_size: int = 256,
) -> tuple[Params, DfrInfo]:
    """Replace the last layer by one that is fitted on held-out samples.

    Args:
      key: draws the subsamples of `balance_by="subsamples"`.
      model: a classifier, or a model cut before its last layer; the head must be affine.
      params: of the trained model.
      sets: `edit`, held-out samples in which the attribute is not associated with the label, or whose groups are known
        and all present, whose `weight` multiplies; `accept`, for the choice of the penalty.
      config: penalties, how groups are balanced, and what chooses.
      batch_size: rows at a time through the network.

    Returns:
      (params, info): only the leaves of the head are new.

    Raises:
      ContractError: sets that are missing or malformed, a head that is not affine, subsamples of samples whose
        attribute is unknown.
    """
    began = time.perf_counter()
    check_type("config", config, DfrConfig)
    check_key("key", key)
    sets, split = needed(sets, "edit", "accept"), as_split(model)
    edit, accept = sets.edit, sets.accept
    z, z_accept = (frozen_features(split, params, batch.x, batch_size=batch_size) for batch in (edit, accept))
    head, replace = last_layer(split, params, z.shape[1])
    subsampled = config.balance and config.balance_by == "subsamples"
    weighted = config.balance and not subsampled
    weight = balanced_weights(edit.label, edit.attribute) if weighted else np.ones(len(z), np.float32)
    if edit.weight is not None:
        weight = weight * np.asarray(edit.weight, np.float32)
    mean, scale = _standardisation(z, centred=head.bias is not None)
    problem = head_problem((z - mean[None, :]) / scale[None, :], np.asarray(edit.label), head, weight=weight)
    draws = None
    if subsampled:
        draws = balanced_subsamples(key, edit.label, edit.attribute, config.averaged)

    # From the largest penalty down: each fit starts where the one before it ended, near its own minimum.
    fit = _l1_fits if config.penalty_kind == "l1" else _l2_fits
    fits, starts = {}, None
    for penalty in sorted(set(config.penalties), reverse=True):
        starts, norm, converged = fit(problem, draws, float(penalty), starts, config)
        fitted = _on_raw_features(_mean_head(starts), mean, scale)
        fits[penalty] = fitted, _score(fitted, z_accept, accept, config.select), norm, converged
    scores = tuple(fits[penalty][1] for penalty in config.penalties)
    penalty = config.penalties[int(np.argmax(scores))]
    chosen = fits[penalty][0]
    info = DfrInfo(
        penalty,
        scores,
        tuple(fits[penalty][2] for penalty in config.penalties),
        _score(head, z_accept, accept, "accuracy"),
        _score(chosen, z_accept, accept, "accuracy"),
        time.perf_counter() - began,
        converged=all(found[3] for found in fits.values()),
        rows=len(z) if draws is None else draws.shape[1],
        zeros=float(np.mean(np.asarray(chosen.kernel) == 0)),
    )
    return replace(params, chosen), info


def balanced_weights(label: Int[Array, "n"], attribute: Int[Array, "n"]) -> Float[np.ndarray, "n"]:
    """Weights of mean 1 that give every group present the same total; all 1 where an attribute is unknown (-1).

    >>> balanced_weights(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])).tolist()
    [0.666..., 0.666..., 0.666..., 2.0]
    """
    label, attribute = _checked_groups(label, attribute)
    if (attribute < 0).any():
        return np.ones(len(label), np.float32)
    _, group, count = np.unique(
        group_of(label, attribute, int(attribute.max()) + 1), return_inverse=True, return_counts=True
    )
    return (len(label) / (len(count) * count[group])).astype(np.float32)


def balanced_subsamples(
    key: Key, label: Int[Array, "n"], attribute: Int[Array, "n"], count: int = 1
) -> Int[np.ndarray, "s r"]:
    """Rows of `count` random subsamples in which every (label, attribute) group present has the size of the smallest.

    Raises:
      ContractError: an unknown attribute (-1): there are then no groups to balance.

    >>> rows = balanced_subsamples(jax.random.key(0), np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), 2)
    >>> rows.shape, (rows == 3).sum(axis=1).tolist()
    ((2, 2), [1, 1])
    """
    label, attribute = _checked_groups(label, attribute)
    expect(
        bool((attribute >= 0).all()),
        "edit.attribute",
        "known attributes, for subsamples balanced by group",
        f"{int((attribute < 0).sum())} unknown (-1)",
    )
    _, group, size = np.unique(
        group_of(label, attribute, int(attribute.max()) + 1), return_inverse=True, return_counts=True
    )
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, len(label)))(jax.random.split(key, count)))
    return np.stack(
        [np.concatenate([order[group[order] == g][: size.min()] for g in range(len(size))]) for order in orders]
    )


def _checked_groups(label: Array, attribute: Array) -> tuple[np.ndarray, np.ndarray]:
    n = row_count("label", label)
    check_integers("label", label, n, 0, None)
    check_integers("attribute", attribute, n, -1, None)
    for name, value in (("label", label), ("attribute", attribute)):
        check_counted(name, int(np.max(value)) + 1)
    return np.asarray(label), np.asarray(attribute)


def _mean_head(heads: list[AffineHead]) -> AffineHead:
    if len(heads) == 1:
        return heads[0]
    return jax.tree.map(lambda *leaves: np.mean(np.stack(leaves).astype(np.float64), axis=0), *heads)


def _l2_fits(
    problem: HeadProblem,
    draws: Int[np.ndarray, "s r"] | None,
    penalty: float,
    starts: list[AffineHead] | None,
    config: DfrConfig,
) -> tuple[list[AffineHead], float, bool]:
    """The heads of all subsamples (or of all rows), the largest gradient norm, and whether all converged."""
    parts = (
        [problem]
        if draws is None
        else [
            problem._replace(features=problem.features[rows], label=problem.label[rows], weight=problem.weight[rows])
            for rows in draws
        ]
    )
    fits = [
        refit(part._replace(l2=penalty), tolerance=config.tolerance, start=start)
        for part, start in zip(parts, starts or [None] * len(parts), strict=True)
    ]
    return [head for head, _ in fits], max(fit.gradient_norm for _, fit in fits), all(fit.converged for _, fit in fits)


def _l1_fits(
    problem: HeadProblem,
    draws: Int[np.ndarray, "s r"] | None,
    penalty: float,
    starts: list[AffineHead] | None,
    config: DfrConfig,
) -> tuple[list[AffineHead], float, bool]:
    """As `_l2_fits`, all subsamples in one program."""
    n, like = len(problem.label), problem.head
    rows = np.arange(n)[None] if draws is None else draws
    phi = problem.features
    if like.bias is not None:
        phi = jnp.concatenate([phi, jnp.ones((n, 1), phi.dtype)], axis=1)
    if starts is None:
        start = jnp.zeros((len(rows), phi.shape[1], like.kernel.shape[1]), phi.dtype)
    else:
        start = jnp.stack([_matrix(head) for head in starts])
    theta, violation, norm = fit_l1(
        phi,
        problem.label,
        problem.weight,
        jnp.asarray(rows),
        start,
        penalty,
        config.tolerance,
        max_steps=config.max_steps,
    )
    check_finite("fitted head", theta)
    d = like.kernel.shape[0]
    heads = [AffineHead(one[:d], None if like.bias is None else one[d]) for one in np.asarray(theta)]
    return heads, float(norm.max()), bool((violation <= config.tolerance).all())


def _matrix(head: AffineHead) -> jax.Array:
    return jnp.asarray(head.kernel if head.bias is None else np.concatenate([head.kernel, head.bias[None]]))


@functools.partial(jax.jit, static_argnames=("max_steps",))
def fit_l1(
    phi: Float[Array, "n e"],
    label: Int[Array, "n"],
    weight: Float[Array, "n"],
    rows: Int[Array, "s r"],
    start: Float[Array, "s e k"],
    penalty: float | Float[Array, ""],
    tolerance: float | Float[Array, ""],
    *,
    max_steps: int,
) -> tuple[Float[Array, "s e k"], Float[Array, "s"], Float[Array, "s"]]:
    """L1 multinomial regressions on several subsamples, by FISTA with adaptive restart, in one program per shape.

    Each minimises `sum over its rows of weight_i * cross-entropy_i + penalty |theta|_1`, logits being phi @ theta. The
    step is 1 / L with L half the largest eigenvalue of phi^T diag(weight) phi, which bounds the softmax Hessian. Every
    20 steps the optimality conditions are checked. Sources: Beck and Teboulle 2009; O'Donoghue and Candes 2015.

    Args:
      phi: `[n e]`; a head with a bias has a column of ones.
      label: `[n]` int, 0..k-1.
      weight: `[n]` float, 0 is padding; None: 1 for all.
      rows: `[s r]`, those of each subsample.
      start: `[s e k]`.
      penalty: strength of the L1 penalty.
      tolerance: on the violation.
      max_steps: steps at most.

    Returns:
      (theta, violation, norm): violation is the largest entry of the smallest subgradient, divided by the penalty;
      norm its Euclidean norm.
    """

    def one(rows: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        z, own, w = phi[rows], jax.nn.one_hot(label[rows], start.shape[1], dtype=phi.dtype), weight[rows]
        gram = jnp.matmul(z.T, w[:, None] * z, precision=jax.lax.Precision.HIGHEST)
        # A little more than the bound, for the rounding of the eigenvalue.
        size = 1.0 / jnp.maximum(0.505 * jnp.linalg.eigvalsh(gram)[-1], jnp.finfo(phi.dtype).tiny)

        def gradient(theta: jax.Array) -> jax.Array:
            p = jax.nn.softmax(jnp.matmul(z, theta, precision=jax.lax.Precision.HIGHEST))
            return jnp.matmul(z.T, w[:, None] * (p - own), precision=jax.lax.Precision.HIGHEST)

        def subgradient(theta: jax.Array) -> jax.Array:
            g = gradient(theta)
            at_zero = jnp.sign(g) * jnp.maximum(jnp.abs(g) - penalty, 0.0)
            return jnp.where(theta == 0, at_zero, g + penalty * jnp.sign(theta))

        def step(_, carry):
            theta, ahead, t = carry
            moved = ahead - size * gradient(ahead)
            new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - size * penalty, 0.0)
            # Momentum that points uphill is dropped.
            t = jnp.where(((ahead - new) * (new - theta)).sum() > 0, 1.0, t)
            t_new = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * t**2))
            return new, new + ((t - 1.0) / t_new) * (new - theta), t_new

        def unfinished(carry):
            return (carry[-1] > tolerance) & (carry[0] < max_steps)

        def twenty(carry):
            number, theta, ahead, t, _ = carry
            theta, ahead, t = jax.lax.fori_loop(0, 20, step, (theta, ahead, t))
            return number + 20, theta, ahead, t, jnp.abs(subgradient(theta)).max() / penalty

        first = (0, start, start, jnp.ones((), phi.dtype), jnp.asarray(jnp.inf, phi.dtype))
        _, theta, _, _, violation = jax.lax.while_loop(unfinished, twenty, first)
        return theta, violation, jnp.linalg.norm(subgradient(theta))

    return jax.vmap(one)(rows, start)


def _standardisation(z: Float[Array, "n d"], *, centred: bool) -> tuple[jax.Array, jax.Array]:
    # Without a bias the head cannot take up a shift, so such features are only scaled. Dead units stay as they are.
    mean, scale = z.mean(axis=0), z.std(axis=0)
    return mean if centred else jnp.zeros_like(mean), jnp.where(scale > 0, scale, 1.0)


def _on_raw_features(head: AffineHead, mean: Float[Array, "d"], scale: Float[Array, "d"]) -> AffineHead:
    """The same logits from features that are not standardised."""
    kernel = head.kernel / np.asarray(scale, np.float64)[:, None]
    bias = None if head.bias is None else jnp.asarray(head.bias - np.asarray(mean, np.float64) @ kernel, mean.dtype)
    return AffineHead(jnp.asarray(kernel, mean.dtype), bias)


def _score(head: AffineHead, z: Float[Array, "n d"], batch: Batch, select: str) -> float:
    right = np.asarray(head_logits(head, z).argmax(axis=1)) == np.asarray(batch.label)
    weight = np.ones(len(right)) if batch.weight is None else np.asarray(batch.weight, np.float64)
    if select == "accuracy":
        return float(np.average(right, weights=weight))
    group = group_of(np.asarray(batch.label), np.asarray(batch.attribute), int(np.max(batch.attribute)) + 1)
    return min(
        float(np.average(right[group == g], weights=weight[group == g]))
        for g in np.unique(group)
        if weight[group == g].sum() > 0
    )
