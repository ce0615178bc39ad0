"""The methods of the Corrupted CIFAR-10 table, by the published protocol."""

from dataclasses import replace
from typing import Any

import jax

from jaxdebias.core import Array, Learner
from jaxdebias.mitigate._disent import DisentConfig, disent
from jaxdebias.mitigate._erm import erm
from jaxdebias.mitigate._group_balanced import group_balanced
from jaxdebias.mitigate._lff import lff
from jaxdebias.mitigate._sih import SihConfig, sih, sih_monitor, sih_run_config
from jaxdebias.models import resnet20, resnet_two_encoders, resnet_vae
from jaxdebias.reproduce._cases import Case
from jaxdebias.reproduce._colored_mnist import ADAM, CNN, CNN_OPTIMIZER, CNN_RECIPE, GUESSED, LAST, _aug_cell, _counts
from jaxdebias.reproduce._fitting import Fit, Method, Swept
from jaxdebias.train._augment import chain, random_affine, random_flip, random_resized_crop, random_shift
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._run import FitConfig

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
