"""How each method of the papers' tables is trained, by the published protocol.

The runs of a method are one `train.sweep`. Test rows are only ever reported: see `Method.selection` for what chose the
weights.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, expect
from jaxdebias.core import Array, Batch, Classifier, Learner, Params, cell_counts
from jaxdebias.mitigate._aug_cell.info import AugCellInfo
from jaxdebias.mitigate._aug_cell.training import CANDIDATES, AugCellConfig, Candidate, aug_cell
from jaxdebias.mitigate._disent import DisentConfig, disent
from jaxdebias.mitigate._erm import erm
from jaxdebias.mitigate._gce import gce
from jaxdebias.mitigate._group_balanced import group_balanced
from jaxdebias.mitigate._group_dro import group_dro
from jaxdebias.mitigate._jtt import JttConfig, jtt
from jaxdebias.mitigate._lff import lff
from jaxdebias.mitigate._sih import SihConfig, sih, sih_monitor, sih_run_config
from jaxdebias.models import cnn, mlp, mlp_two_encoders, mlp_vae, resnet20, resnet_two_encoders, resnet_vae
from jaxdebias.reproduce._cases import Case, Cases
from jaxdebias.results.build import plain
from jaxdebias.train._augment import Augment, chain, random_affine, random_flip, random_resized_crop, random_shift
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._run import FitConfig
from jaxdebias.train._schedule import (
    HELD_OUT_ACCURACY,
    HELD_OUT_LOSS,
    Monitor,
    worst_class_accuracy,
    worst_group_accuracy,
)
from jaxdebias.train._sweep import map_runs, sweep
from jaxdebias.train.feed import View

Observe = Callable[[str], None]
Logits = Callable[[Any, Array], jax.Array]
"""(state, x) -> logits [n k]."""


class Fitted(NamedTuple):
    """A trained run of a method."""

    case: Case
    logits: dict[str, np.ndarray]
    """On the test rows `[10000 10]`: `""` what the method predicts; further networks of it by name."""
    seconds: float
    """Wall time of its training; of a portion of runs that trained together, an equal share."""
    said: dict[str, Any]
    """What else a table may want, as JSON values."""


Fit = Callable[[Cases, Observe], Iterator[Fitted]]


class Method(NamedTuple):
    """A row of the table."""

    labels: str
    """Which labels of the bias it needs."""
    selection: str
    """What chose the weights that are reported."""
    fit: Fit


def accuracies(logits: Mapping[str, np.ndarray], test: Batch) -> dict[str, float]:
    """Plain, bias-aligned and bias-conflicting accuracy of each network; of `""` without a prefix."""
    label, aligned = np.asarray(test.label), np.asarray(test.label) == np.asarray(test.attribute)
    rates = {}
    for name, values in logits.items():
        right, prefix = np.asarray(values).argmax(axis=1) == label, f"{name}_" if name else ""
        rates[f"{prefix}accuracy"] = float(right.mean())
        rates[f"{prefix}bias_aligned_accuracy"] = float(right[aligned].mean())
        rates[f"{prefix}bias_conflicting_accuracy"] = float(right[~aligned].mean())
    return rates


# --- how methods are trained


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A `Fit`: one sweep over all cases whose learner is the same, which for most methods are all."""

    learner_of: Callable[[Case], Learner]
    config: FitConfig
    others: Mapping[str, Logits] = field(default_factory=dict)
    """Further networks to be measured on the test rows."""
    held_out: bool = False
    """Keep back a random tenth of the training rows, drawn by the seed."""
    monitor: Monitor = HELD_OUT_LOSS
    block: int | None = None
    """How many cases are in memory at a time; None: all."""

    def selected(self, monitor: Monitor) -> "Swept":
        """The same, with the epoch's weights that the monitor likes best on the tenth."""
        return replace(self, held_out=True, monitor=monitor, config=replace(self.config, keep="best"))

    def __call__(self, cases: Cases, observe: Observe) -> Iterator[Fitted]:
        for first in range(0, len(cases), self.block or max(1, len(cases))):
            some = [cases[i] for i in range(first, min(first + (self.block or len(cases)), len(cases)))]
            for learner, group in itertools.groupby(some, key=self.learner_of):
                yield from self._together(learner, list(group), cases, observe)

    def _together(self, learner: Learner, own: list[Case], cases: Cases, observe: Observe) -> Iterator[Fitted]:
        kept = [cases.tenth(case) if self.held_out else (case.train, None) for case in own]
        pictures = cases.pictures

        def look(runs: tuple[int, ...], epoch: int, means: Mapping[str, float]) -> None:
            which = ", ".join(f"{own[i].conflicting:.1%} seed {own[i].seed}" for i in runs[:3])
            observe(
                f"{which}{' ...' if len(runs) > 3 else ''}: epoch {epoch} of at most {self.config.epochs}, loss "
                f"{means['loss']:.4g}"
            )

        parts = sweep(
            [jax.random.key(case.seed) for case in own],
            learner,
            [train for train, _ in kept],
            self.config,
            held_out=[rest for _, rest in kept] if self.held_out else None,
            monitor=self.monitor,
            shared=pictures.shared,
            view=pictures.view,
            observe=look,
        )
        for part in parts:
            tests = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(own[i].test for i in part.runs))
            networks = {"": learner.predict, **self.others}
            logits = {
                name: np.asarray(_logits(part.state, tests, pictures.shared, of=of, view=pictures.view))
                for name, of in networks.items()
            }
            for place, i in enumerate(part.runs):
                yield Fitted(
                    own[i],
                    {name: values[place] for name, values in logits.items()},
                    part.seconds / len(part.runs),
                    {"epochs": int(part.epoch[place]), "best_epoch": int(part.best_epoch[place])},
                )


@functools.partial(jax.jit, static_argnames=("of", "view"))
def _logits(states: Any, tests: Batch, shared: Any, *, of: Logits, view: View | None) -> jax.Array:
    """`[r n k]` of each run on its own test rows."""

    def one(state: Any, test: Batch) -> jax.Array:
        def logits(both: Any, rows: Batch) -> jax.Array:
            return of(both[0], (rows if view is None else view(both[1], rows)).x)

        return map_rows(logits, (state, shared), test)

    return map_runs(one, states, tests)


ADAM = Optimizer(learning_rate=1e-3)
EPOCHS = FitConfig(epochs=100, batch_size=256)
BRANCHES = mlp_vae()


def _bias_branch(state: Any, x: Array) -> jax.Array:
    return BRANCHES.bias.apply(state.variables, x)


def _biased_network(state: Any, x: Array) -> jax.Array:
    return mlp().apply(state.biased_variables, x)


def _fit_jtt(cases: Cases, observe: Observe) -> Iterator[Fitted]:
    """One epoch, then 100 in which its errors weigh 51 times as much; settings that were not tuned."""
    config = JttConfig(first=FitConfig(epochs=1, batch_size=256), second=EPOCHS)
    for case in cases:
        began = time.perf_counter()
        trained, info = jtt(jax.random.key(case.seed), mlp(), cases.drawn(case.train), config, ADAM)
        seconds, conflicting = time.perf_counter() - began, case.train.label != case.train.attribute
        logits = map_rows(mlp().apply, trained, cases.drawn(case.test).x)
        yield Fitted(
            case,
            {"": np.asarray(logits)},
            seconds,
            {"flagged_precision": _share(conflicting[info.errors]), "flagged_recall": _share(info.errors[conflicting])},
        )


def _aug_cell(
    classifier: Classifier,
    config: AugCellConfig = AugCellConfig(),
    optimizer: Optimizer = ADAM,
    *,
    judge: Classifier | None = None,
    augment: Augment | None = None,
) -> Fit:
    """Rows say how every candidate does, which is the method's ablation."""

    def fit(cases: Cases, observe: Observe) -> Iterator[Fitted]:
        for case in cases:
            began = time.perf_counter()
            unlabelled = case.train._replace(attribute=np.full_like(case.train.label, -1))
            params, info = aug_cell(
                jax.random.key(case.seed),
                classifier,
                unlabelled,
                config,
                optimizer,
                judge=judge,
                augment=augment,
                shared=cases.pictures.shared,
                view=cases.pictures.view,
                observe=lambda said, case=case: observe(f"{case.conflicting:.1%} seed {case.seed}: {said}"),
            )
            seconds = time.perf_counter() - began
            test = cases.drawn(case.test).x

            def logits(trained: Params, test: Array = test) -> np.ndarray:
                return np.asarray(map_rows(classifier.apply, trained, test))

            yield Fitted(case, {"": logits(params)}, seconds, aug_cell_said(info, case.train, case.test, logits))

    return fit


def aug_cell_said(
    info: AugCellInfo, train: Batch, test: Batch, logits: Callable[[Params], np.ndarray]
) -> dict[str, Any]:
    """What a table keeps of a run of AUG-CELL, as JSON values; the true attribute is used here alone.

    Args:
      info: of `aug_cell`.
      train: the training rows.
      test: the test rows.
      logits: from a candidate's parameters to its logits on the test rows.
    """
    flagged, conflicting = info.cells.guess != train.label, train.label != train.attribute
    return plain(
        {
            "chosen": info.chosen,
            "said": info.findings,
            "confidence": info.confidence,
            "scores": info.scores,
            "directed": info.directed,
            "candidates": {name: accuracies({"": logits(trained)}, test) for name, trained in info.trained.items()},
            "flagged_share": info.cells.flagged_share,
            "flagged_precision": _share(conflicting[flagged]),
            "flagged_recall": _share(flagged[conflicting]),
            "left_out": info.suspect.sum(),
            "left_out_conflicting": (info.suspect & conflicting).sum(),
            "cleared": info.cleared,
        }
    )


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if flags.size else None


# --- Colored MNIST


def _counts(case: Case) -> np.ndarray:
    return cell_counts(case.train.label, case.train.attribute, 10, 10)


def _disent_on_digits(input_scale: float) -> Swept:
    return Swept(
        learner_of=lambda case: disent(mlp_two_encoders(input_scale=input_scale), rows=len(case.train.label)),
        config=FitConfig(epochs=214, steps_per_epoch=234, batch_size=256),
    )


CNN = cnn(channels=(16, 32, 64), dense=128)
CNN_RECIPE = AugCellConfig(steps=5000, candidates=(CANDIDATES[0], Candidate(name="aug-cell", tau=0.5, augmented=True)))
CNN_OPTIMIZER = Optimizer(learning_rate=2e-3)
"""Chosen on 50,000 of the training digits of seed 101, by the other 10,000 in balanced colours; test digits and the
table's seeds played no part, colours of training digits did."""
LAST = "last weights"
GUESSED = "guessed cells of a held-out tenth, no bias label"
COLORED_MNIST: dict[str, Method] = {
    "erm": Method(
        "none", LAST, Swept(learner_of=lambda case: erm(mlp(), optimizer=ADAM), config=replace(EPOCHS, drop_last=True))
    ),
    "gce": Method("none", LAST, Swept(learner_of=lambda case: gce(mlp(), optimizer=ADAM), config=EPOCHS)),
    "sih": Method(
        "none",
        "own loss on a biased tenth of the training digits (official protocol)",
        Swept(
            learner_of=lambda case: sih(BRANCHES),
            config=sih_run_config(),
            others={"bias_branch": _bias_branch},
            held_out=True,
            monitor=sih_monitor(BRANCHES, protocol="official"),
        ),
    ),
    "sih-fixed": Method(
        "none",
        "own loss on a biased tenth of the training digits (all of them, every epoch)",
        Swept(
            learner_of=lambda case: sih(BRANCHES),
            config=sih_run_config(),
            others={"bias_branch": _bias_branch},
            held_out=True,
            monitor=sih_monitor(BRANCHES),
        ),
    ),
    "aug-cell": Method("none", GUESSED, _aug_cell(mlp())),
    "aug-cell-cnn": Method("none", GUESSED, _aug_cell(CNN, CNN_RECIPE, CNN_OPTIMIZER, judge=mlp())),
    "lff": Method(
        "none",
        LAST,
        Swept(
            learner_of=lambda case: lff(mlp(), optimizer=ADAM, rows=len(case.train.label)),
            config=EPOCHS,
            others={"biased_network": _biased_network},
        ),
    ),
    "disent": Method("none", LAST, _disent_on_digits(1.0)),
    "disent-official": Method(
        "none", f"{LAST}; pixels divided by 255 twice, as in its code", _disent_on_digits(1 / 255)
    ),
    "jtt": Method("none, with settings that were not tuned", LAST, _fit_jtt),
    "group-balanced": Method(
        "all training samples",
        LAST,
        Swept(learner_of=lambda case: group_balanced(mlp(), optimizer=ADAM, groups=_counts(case)), config=EPOCHS),
    ),
    "group-dro": Method(
        "all training samples",
        LAST,
        Swept(learner_of=lambda case: group_dro(mlp(), optimizer=ADAM, groups=_counts(case)), config=EPOCHS),
    ),
}


# --- Corrupted CIFAR-10

CROPS = chain(random_resized_crop(), random_flip)
"""What SiH and plain training see."""
PADDED = chain(random_shift(4), random_flip)
"""What LfF and DisEnt see."""
RESNET_BRANCHES = resnet_vae()
GAUSSIAN = SihConfig(reconstruction="gaussian")
LONG = FitConfig(epochs=200, batch_size=256)
SIX = 6
"""Cases in memory at a time: the ratios of one seed, 1 GB of pictures."""


def _resnet_bias_branch(state: Any, x: Array) -> jax.Array:
    return RESNET_BRANCHES.bias.apply(state.variables, x)


def _biased_resnet(state: Any, x: Array) -> jax.Array:
    return resnet20().apply(state.biased_variables, x)


def _sih_on_pictures(protocol: str) -> Fit:
    # The published code crops the held-out pictures at random too.
    monitor = sih_monitor(
        RESNET_BRANCHES, GAUSSIAN, protocol=protocol, augment=CROPS if protocol == "official" else None
    )
    return Swept(
        learner_of=lambda case: sih(RESNET_BRANCHES, GAUSSIAN, augment=CROPS),
        config=sih_run_config(patience=20),
        others={"bias_branch": _resnet_bias_branch},
        held_out=True,
        monitor=monitor,
        block=SIX,
    )


def _disent_on_pictures(case: Case) -> Learner:
    """The published settings differ by ratio."""
    weight = 5.0 if case.conflicting in (0.01, 0.02) else 1.0
    config = DisentConfig(biased_weight=weight, swap_biased_weight=weight)
    return disent(
        resnet_two_encoders(),
        config,
        Optimizer(learning_rate=5e-4 if case.conflicting == 0.005 else 1e-3),
        rows=len(case.train.label),
        augment=PADDED,
    )


CORRUPTED_CIFAR10: dict[str, Method] = {
    "erm": Method(
        "none",
        LAST,
        Swept(
            learner_of=lambda case: erm(RESNET_BRANCHES.signal, optimizer=ADAM, augment=CROPS),
            config=replace(LONG, drop_last=True),
            block=SIX,
        ),
    ),
    "sih": Method(
        "none", "own loss on a biased tenth of the training pictures (official protocol)", _sih_on_pictures("official")
    ),
    "sih-fixed": Method(
        "none",
        "own loss on a biased tenth of the training pictures (all of them, every epoch)",
        _sih_on_pictures("fixed"),
    ),
    "aug-cell": Method(
        "none", GUESSED, _aug_cell(CNN, CNN_RECIPE, CNN_OPTIMIZER, augment=chain(random_flip, random_affine()))
    ),
    "lff": Method(
        "none",
        LAST,
        Swept(
            learner_of=lambda case: lff(resnet20(), optimizer=ADAM, rows=len(case.train.label), augment=PADDED),
            config=LONG,
            others={"biased_network": _biased_resnet},
            block=SIX,
        ),
    ),
    "disent": Method(
        "none",
        LAST,
        Swept(
            learner_of=_disent_on_pictures, config=FitConfig(epochs=256, steps_per_epoch=195, batch_size=256), block=SIX
        ),
    ),
    "group-balanced": Method(
        "all training samples",
        LAST,
        Swept(
            learner_of=lambda case: group_balanced(resnet20(), optimizer=ADAM, augment=PADDED, groups=_counts(case)),
            config=LONG,
            block=SIX,
        ),
    ),
}
METHODS: dict[str, dict[str, Method]] = {"colored-mnist": COLORED_MNIST, "corrupted-cifar10": CORRUPTED_CIFAR10}

SELECTIONS: dict[str, tuple[str, str, Monitor]] = {
    "plain": ("none", "best accuracy on a biased tenth of the training rows", HELD_OUT_ACCURACY),
    "worst-class": ("none", "best worst class on a biased tenth of the training rows", worst_class_accuracy(10)),
    "worst-group": (
        "a tenth of the training samples",
        "best worst group on a biased tenth of the training rows",
        worst_group_accuracy(10, 10),
    ),
}
"""What may choose the epoch in place of the protocol: (labels of the bias, in words, monitor)."""


def method_of(data: str, name: str) -> Method:
    """A method of a table: a name in `METHODS`, or with another choice of the epoch, `lff@worst-class`.

    Raises:
      ContractError: unknown names, or a method that is not trained by epochs alone.
    """
    name, _, selection = name.partition("@")
    check_choice("methods", name, METHODS[data])
    method = METHODS[data][name]
    if not selection:
        return method
    check_choice("methods", selection, SELECTIONS)
    expect(isinstance(method.fit, Swept), "methods", f"a method whose epoch can be chosen, before @{selection}", name)
    labels, words, monitor = SELECTIONS[selection]
    needs = labels if method.labels == "none" else method.labels
    return Method(needs, words, method.fit.selected(monitor))
