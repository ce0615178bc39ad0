"""Ours and the peers' ways to influence scores, each behind one function."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from jaxdebias.explain import influence
from jaxdebias.explain.influence import _objective as objective

D, K, HELD_OUT = 100, 10, 500
RIGHT_HAND_SIDES = (1, 10, HELD_OUT)
DAMPING = 1e-3  # of the mean of the losses
AUTODIFF_ROWS = 5_300  # at a time, for Hessians by automatic differentiation: 214 MB an array, faster than fewer rows
SAMPLES_SUM = "sum of losses, damping as given"
SAMPLES_MEAN = "mean of losses: given damping / n, scores divided by n"


class Setting(NamedTuple):
    """The same problem in NumPy; each method makes of it what it needs before the clock starts."""

    z: np.ndarray  # [n d] float32
    label: np.ndarray  # [n]
    z_out: np.ndarray  # [HELD_OUT d]
    label_out: np.ndarray
    kernel: np.ndarray  # [d k] float32
    bias: np.ndarray  # [k]

    @property
    def damping(self) -> float:
        return DAMPING * len(self.label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """`factor() -> state` is done once, `scores(state, m) -> [n m]` for each set of right-hand sides."""

    name: str
    convention: str
    exact: bool
    factor: Callable[[], Any]
    scores: Callable[[Any, int], Any]
    note: str = ""


def setting(n: int) -> Setting:
    """Rectified features that show the attribute more than the label, as those of a biased net, and a fitted head."""
    rng = np.random.default_rng(0)
    of_label, of_attribute = rng.normal(size=(2, K, D))

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        label = rng.integers(0, K, count, dtype=np.int32)
        attribute = np.where(rng.random(count) < 0.9, label, rng.integers(0, K, count))
        z = 0.35 * of_label[label] + 0.5 * of_attribute[attribute] + rng.normal(size=(count, D))
        return np.maximum(z, 0).astype(np.float32), label

    (z_out, label_out), (z_fit, label_fit) = rows(HELD_OUT), rows(5_000)
    zeros = influence.AffineHead(jnp.zeros((D, K)), jnp.zeros(K))
    problem = influence.head_problem(jnp.asarray(z_fit), jnp.asarray(label_fit), zeros, l2=5.0)
    head, _ = influence.refit(problem, tolerance=1e-3)
    z, label = rows(n)
    return Setting(z, label, z_out, label_out, np.asarray(head.kernel, np.float32), np.asarray(head.bias, np.float32))


def reference(s: Setting) -> np.ndarray:
    """The scores `[n HELD_OUT]` in float64, block by block of the Hessian as it is defined."""
    kernel, bias = np.asarray(s.kernel, np.float64), np.asarray(s.bias, np.float64)

    def parts(z: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits = z @ kernel + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return np.concatenate([z, np.ones((len(z), 1))], axis=1), p, p - np.eye(K)[label]

    phi, p, error = parts(np.asarray(s.z, np.float64), s.label)
    out, _, error_out = parts(np.asarray(s.z_out, np.float64), s.label_out)
    e = phi.shape[1]
    matrix = np.zeros((e, K, e, K))
    for a in range(K):
        for b in range(a, K):
            matrix[:, a, :, b] = (phi * (p[:, a] * ((a == b) - p[:, b]))[:, None]).T @ phi
            matrix[:, b, :, a] = matrix[:, a, :, b]
    matrix = matrix.reshape(e * K, e * K) + s.damping * np.eye(e * K)
    right = np.einsum("me,mk->ekm", out, error_out).reshape(e * K, -1)
    solved = linalg.solve(matrix, right, assume_a="pos").reshape(e, K, -1)
    scores = np.empty((len(phi), solved.shape[2]), np.float32)
    for column in range(solved.shape[2]):
        scores[:, column] = ((phi @ solved[:, :, column]) * error).sum(axis=1)
    return scores


def ours(s: Setting) -> Method:
    head = influence.AffineHead(jnp.asarray(s.kernel), jnp.asarray(s.bias))
    problem = influence.head_problem(jnp.asarray(s.z), jnp.asarray(s.label), head)
    z_out, label_out = jnp.asarray(s.z_out), jnp.asarray(s.label_out)

    @jax.jit
    def right(z: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.einsum("me,mk->ekm", objective.design(z, head), objective.error(head, z, label)).reshape(-1, len(z))

    def scores(inverse: Any, m: int) -> Any:
        return influence.change_if_removed(problem, inverse, right(z_out[:m], label_out[:m]))

    return Method(
        name="jaxdebias",
        convention=SAMPLES_SUM,
        exact=True,
        scores=scores,
        factor=lambda: influence.factor(problem, damping=s.damping),
        note="Hessian in float32, factor in float64 on the host",
    )


def torch_closed_form(s: Setting) -> Method:
    import torch

    chunk = 2_048
    kernel, bias = torch.from_numpy(s.kernel), torch.from_numpy(s.bias)
    one, two = np.triu_indices(K, 1)  # the 45 pairs of classes; the diagonal blocks are minus their sum
    one, two = torch.from_numpy(one), torch.from_numpy(two)

    def phi_of(z: Any) -> Any:
        return torch.cat([z, torch.ones(len(z), 1)], dim=1)

    def error_of(z: Any, label: Any) -> Any:
        return torch.softmax(z @ kernel + bias, dim=1) - torch.nn.functional.one_hot(label, K)

    z, label = torch.from_numpy(s.z), torch.from_numpy(s.label).long()
    z_out, label_out = torch.from_numpy(s.z_out), torch.from_numpy(s.label_out).long()
    e = D + 1

    def factor() -> Any:
        total = torch.zeros(e, len(one) * e)
        for rows in z.split(chunk):
            phi, p = phi_of(rows), torch.softmax(rows @ kernel + bias, dim=1)
            total.addmm_(phi.T, ((p[:, one] * p[:, two])[:, :, None] * phi[:, None, :]).reshape(len(rows), -1))
        gram = total.reshape(e, len(one), e).permute(1, 0, 2)
        blocks = torch.zeros(K, K, e, e)
        blocks[one, two], blocks[two, one] = -gram, -gram
        blocks[range(K), range(K)] = -blocks.sum(dim=1)
        matrix = blocks.permute(2, 0, 3, 1).reshape(e * K, e * K).double()
        matrix.diagonal().add_(s.damping)
        return torch.linalg.cholesky(matrix)

    def scores(cholesky: Any, m: int) -> Any:
        right = torch.einsum("me,mk->ekm", phi_of(z_out[:m]), error_of(z_out[:m], label_out[:m])).reshape(e * K, m)
        matrix = torch.cholesky_solve(right.double(), cholesky).float().reshape(e, K * m)
        return torch.cat(
            [
                torch.einsum("bkm,bk->bm", (phi_of(rows) @ matrix).reshape(-1, K, m), error_of(rows, own))
                for rows, own in zip(z.split(chunk), label.split(chunk), strict=True)
            ]
        )

    return Method(
        name="PyTorch by hand, same closed form",
        convention=SAMPLES_SUM,
        exact=True,
        factor=factor,
        scores=scores,
        note=f"{chunk} rows at a time, float64 Cholesky",
    )


def torch_model(s: Setting) -> Any:
    import torch

    model = torch.nn.Linear(D, K)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(s.kernel.T.copy()))
        model.bias.copy_(torch.from_numpy(s.bias))
    return model.eval()


def torch_data(s: Setting) -> tuple[Any, Any]:
    import torch

    return (
        torch.utils.data.TensorDataset(torch.from_numpy(s.z), torch.from_numpy(s.label).long()),
        torch.utils.data.TensorDataset(torch.from_numpy(s.z_out), torch.from_numpy(s.label_out).long()),
    )


def torch_functional(s: Setting) -> Method:
    import torch
    from torch.func import grad, hessian, vmap

    train, held_out = torch_data(s)
    flat = torch.cat([torch.from_numpy(s.kernel.T.copy()).reshape(-1), torch.from_numpy(s.bias)])

    def loss(theta: Any, z: Any, label: Any) -> Any:
        logits = torch.nn.functional.linear(z, theta[: D * K].reshape(K, D), theta[D * K :])
        return torch.nn.functional.cross_entropy(logits, label, reduction="sum")

    def per_sample(z: Any, label: Any) -> Any:
        return vmap(grad(lambda theta, z, label: loss(theta, z[None], label[None])), (None, 0, 0))(flat, z, label)

    def factor() -> Any:
        total = torch.zeros(len(flat), len(flat))
        for z, label in zip(*(tensor.split(AUTODIFF_ROWS) for tensor in train.tensors), strict=True):
            total += hessian(loss)(flat, z, label)
        total = total.double()
        total.diagonal().add_(s.damping)
        return torch.linalg.cholesky(total)

    def scores(cholesky: Any, m: int) -> Any:
        right = per_sample(*(tensor[:m] for tensor in held_out.tensors))
        solved = torch.cholesky_solve(right.T.double(), cholesky).float()
        return torch.cat(
            [
                per_sample(z, label) @ solved
                for z, label in zip(*(part.split(AUTODIFF_ROWS) for part in train.tensors), strict=True)
            ]
        )

    return Method(
        name="PyTorch torch.func",
        convention=SAMPLES_SUM,
        exact=True,
        factor=factor,
        scores=scores,
        note=f"func.hessian and vmap(grad), {AUTODIFF_ROWS} rows at a time, float64 Cholesky",
    )


def pydvl(s: Setting) -> Method:
    import torch
    from pydvl.influence.torch import DirectInfluence
    from torch.utils.data import DataLoader

    train, held_out = torch_data(s)
    n = len(train)

    def factor() -> Any:
        model = DirectInfluence(torch_model(s), torch.nn.functional.cross_entropy, regularization=DAMPING)
        return model.fit(DataLoader(train, batch_size=AUTODIFF_ROWS))

    def scores(model: Any, m: int) -> Any:
        factors = model.influence_factors(*(tensor[:m] for tensor in held_out.tensors))
        parts = [
            model.influences_from_factors(factors, z, label)
            for z, label in zip(*(part.split(AUTODIFF_ROWS) for part in train.tensors), strict=True)
        ]
        return torch.cat(parts, dim=1).T.detach() / n

    return Method(
        name="pyDVL DirectInfluence",
        convention=SAMPLES_MEAN,
        exact=True,
        factor=factor,
        scores=scores,
        note=f"{AUTODIFF_ROWS} rows at a time; float32 factor and solve, its default",
    )


def dattri_task(s: Setting) -> Any:
    import torch
    from dattri.task import AttributionTask

    model = torch_model(s)

    def loss(params: Any, data: Any) -> Any:
        z, label = data
        return torch.nn.functional.cross_entropy(
            torch.func.functional_call(model, params, (z,)), label, reduction="sum"
        )

    return AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())


def dattri_explicit(s: Setting) -> Method:
    from dattri.algorithm.influence_function import IFAttributorExplicit
    from torch.utils.data import DataLoader, Subset

    train, held_out = torch_data(s)
    task = dattri_task(s)
    expect_memory(len(train) * (D + 1) * K * K * 4 * 6, "its Hessian takes all rows at once, about 6 arrays [p n k]")

    def scores(_: None, m: int) -> Any:
        attributor = IFAttributorExplicit(task=task, regularization=s.damping)
        whole = DataLoader(train, batch_size=len(train))
        attributor.cache(whole)
        return attributor.attribute(whole, DataLoader(Subset(held_out, range(m)), batch_size=m)).detach()

    return Method(
        name="dattri IFAttributorExplicit",
        convention=SAMPLES_SUM,
        exact=True,
        factor=lambda: None,
        scores=scores,
        note="one batch: it solves again for every batch of rows; keeps no factor",
    )


def kronfluence(s: Setting) -> Method:
    import torch
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from torch.utils.data import Subset

    class HeadTask(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            logits, label = model(batch[0]), batch[1]
            if sample:
                label = torch.multinomial(torch.softmax(logits.detach(), dim=1), 1).flatten()
            return torch.nn.functional.cross_entropy(logits, label, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            return self.compute_train_loss(batch, model)

    train, held_out = torch_data(s)
    n, task = len(train), HeadTask()
    model = prepare_model(torch.nn.Sequential(torch_model(s)), task)
    folder = tempfile.mkdtemp(prefix="kronfluence-")
    analyzer = Analyzer(
        analysis_name="head",
        model=model,
        task=task,
        cpu=True,
        output_dir=folder,
        disable_model_save=True,
        disable_tqdm=True,
    )

    def factor() -> None:
        analyzer.fit_all_factors(
            "ekfac",
            train,
            per_device_batch_size=2_048,
            overwrite_output_dir=True,
            factor_args=FactorArguments(strategy="ekfac"),
        )

    def scores(_: None, m: int) -> Any:
        out = analyzer.compute_pairwise_scores(
            "scores",
            "ekfac",
            query_dataset=Subset(held_out, range(m)),
            train_dataset=train,
            per_device_query_batch_size=m,
            per_device_train_batch_size=2_048,
            overwrite_output_dir=True,
            score_args=ScoreArguments(damping_factor=DAMPING),
        )
        return (out if out is not None else analyzer.load_pairwise_scores("scores"))["all_modules"].T / n

    return Method(
        name="kronfluence EK-FAC",
        convention=SAMPLES_MEAN,
        exact=False,
        factor=factor,
        scores=scores,
        note="Kronecker-factored Fisher with sampled labels; writes factors and scores to disk",
    )


class TooLargeError(MemoryError):
    """A peer would need more memory than is there."""


def expect_memory(needed: float, why: str) -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > 0.5 * free:
        raise TooLargeError(f"not run: needs about {needed / 2**30:.0f} GiB ({why})")


METHODS: dict[str, tuple[Callable[[Setting], Method], str | None]] = {
    "jaxdebias": (ours, None),
    "torch": (torch_closed_form, "torch"),
    "torch.func": (torch_functional, "torch"),
    "pydvl": (pydvl, "pydvl.influence.torch"),
    "dattri": (dattri_explicit, "dattri.algorithm"),
    "kronfluence": (kronfluence, "kronfluence"),
}
"""Key on the command line: how to build it, and the module that must import."""


def array(scores: Any) -> np.ndarray:
    """Waits for the result, so this belongs inside the clock; a copy only where the library left it on a device."""
    return np.asarray(jax.block_until_ready(scores) if isinstance(scores, jax.Array) else scores)
