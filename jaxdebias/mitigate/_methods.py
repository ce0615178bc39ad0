"""The table of methods: names, needs and how they are called. Commands and pages take their words from it.

A new method is a file, its export, and a row here. The signature follows from its kind, see `Kind`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdebias.contracts import expect
from jaxdebias.core import Dataset
from jaxdebias.mitigate._aug_cell.training import aug_cell
from jaxdebias.mitigate._dbvae.learner import dbvae
from jaxdebias.mitigate._dfr import dfr
from jaxdebias.mitigate._disent import disent
from jaxdebias.mitigate._erm import erm
from jaxdebias.mitigate._fine_tune import fine_tune, fine_tune_head, retrain_counterfactual, train_from_scratch
from jaxdebias.mitigate._fine_tune_block import fine_tune_block
from jaxdebias.mitigate._fmd.edit import fmd
from jaxdebias.mitigate._gce import gce
from jaxdebias.mitigate._group_balanced import group_balanced
from jaxdebias.mitigate._group_dro import group_dro
from jaxdebias.mitigate._jtt import jtt
from jaxdebias.mitigate._lff import lff
from jaxdebias.mitigate._patch_noise.learner import patch_noise
from jaxdebias.mitigate._protected_column import protected_column
from jaxdebias.mitigate._refit_head import refit_head
from jaxdebias.mitigate._self_influence import self_influence
from jaxdebias.mitigate._sih import sih

Kind = Literal["training", "trainings", "wrapper", "repair"]
"""How a method is called:

    training   (network, config, optimizer, *, augment, rows, groups) -> Learner
    trainings  (key, network, data, config, optimizer, *, augment) -> (params, info): several, one after the other
    wrapper    (learner, ...) -> Learner
    repair     (key, model, params, sets, config, *, batch_size) -> (params, info)
"""

NEEDS = {
    "groups": "the attribute of every training sample",
    "training set": "the training set",
    "held-out": "held-out samples",
    "held-out groups": "held-out samples with their attribute",
    "pairs": "held-out counterfactual pairs",
    "twins": "a counterfactual of every training sample",
    "masks": "a mask of the pixels to hide",
    "column": "a table, and the name of its protected column",
}
"""What a method may need beyond training samples with their labels."""


class Method(NamedTuple):
    """A row of the table."""

    name: str
    """As a user types it."""
    build: Callable[..., Any]
    """The function, see `Kind`."""
    title: str
    """As a page writes it."""
    help: str
    """One line: what it does."""
    needs: tuple[str, ...] = ()
    """Keys of `NEEDS`."""
    kind: Kind = "training"
    network: Literal["classifier", "two encoders", "branches", "vae"] = "classifier"
    """What a training method trains: a `Classifier`, `TwoEncoders`, `Branches` or a `VaeClassifier`."""
    model: str | None = None
    """Name of the network that it trains by default; None: what suits the data set."""
    pictures: bool = False
    """Whether it needs pictures."""
    augment: bool = False
    """Whether pictures are shifted and mirrored by default."""
    draws: Literal["independent", "systematic"] = "independent"
    """As in `FitConfig`."""
    one_network: bool = True
    """Whether the variables are those of one classifier, which may start from given weights."""
    command: bool = True
    """Whether `jaxdebias train` or `jaxdebias debias` offers it."""


def _table(*rows: Method) -> dict[str, Method]:
    return {row.name: row for row in rows}


METHODS = _table(
    Method("erm", erm, "ERM", "plain training, the baseline of all"),
    Method("gce", gce, "GCE", "down-weights what it gets wrong, more biased alone"),
    Method("group-balanced", group_balanced, "Group balancing", "draws every group equally often", ("groups",)),
    Method("group-dro", group_dro, "GroupDRO", "minimises the worst group's loss", ("groups",)),
    Method(
        "lff",
        lff,
        "LfF",
        "up-weights what a biased network gets wrong",
        one_network=False,
    ),
    Method(
        "disent",
        disent,
        "DisEnt",
        "swaps the code of the bias between samples",
        network="two encoders",
        model="mlp",
        pictures=True,
        one_network=False,
    ),
    Method(
        "sih",
        sih,
        "Signal is Harder",
        "two autoencoders: one learns the bias, one the rest",
        network="branches",
        model="mlp",
        pictures=True,
        one_network=False,
    ),
    Method(
        "dbvae",
        dbvae,
        "DB-VAE",
        "draws what is rare in a latent code more often",
        network="vae",
        model="cnn",
        pictures=True,
        augment=True,
        draws="systematic",
        one_network=False,
    ),
    Method(
        "aug-cell",
        aug_cell,
        "AUG-CELL",
        "guesses the attribute, balances it",
        kind="trainings",
        pictures=True,
        augment=True,
        one_network=False,
    ),
    Method(
        "jtt",
        jtt,
        "JTT",
        "up-weights what a first model got wrong",
        kind="trainings",
        one_network=False,
    ),
    Method(
        "patch-noise",
        patch_noise,
        "Hidden pixels",
        "trains any method on pictures in which the pixels that carry the bias are hidden",
        ("masks",),
        kind="wrapper",
        pictures=True,
        command=False,
    ),
    Method(
        "fmd",
        fmd,
        "FMD",
        "edits the last layer by influence and keeps the edit only if the bias drops",
        ("training set", "pairs", "held-out"),
        kind="repair",
    ),
    Method(
        "dfr",
        dfr,
        "DFR",
        "fits the last layer again on held-out samples with balanced groups",
        ("held-out groups",),
        kind="repair",
    ),
    Method(
        "mixing",
        fine_tune_block,
        "Mixing",
        "trains the first layer's channel mixing and the last two layers",
        ("pairs", "held-out"),
        kind="repair",
        pictures=True,
    ),
    Method(
        "fine-tune",
        fine_tune,
        "Fine-tuning",
        "trains all layers further on held-out samples",
        ("pairs", "held-out"),
        kind="repair",
        command=False,
    ),
    Method(
        "fine-tune-head",
        fine_tune_head,
        "Fine-tuning of the head",
        "trains the last layer further on held-out samples",
        ("pairs", "held-out"),
        kind="repair",
        command=False,
    ),
    Method(
        "from-scratch",
        train_from_scratch,
        "From scratch",
        "trains a fresh model on held-out samples alone",
        ("pairs", "held-out"),
        kind="repair",
        command=False,
    ),
    Method(
        "refit-head",
        refit_head,
        "Refitted head",
        "fits the last layer again on the training set joined by counterfactuals",
        ("training set", "pairs"),
        kind="repair",
        command=False,
    ),
    Method(
        "self-influence",
        self_influence,
        "Self-influence",
        "fine-tunes on the training samples that contradict the shortcut, found without the attribute",
        ("training set",),
        kind="repair",
        command=False,
    ),
    Method(
        "retrain-counterfactual",
        retrain_counterfactual,
        "Counterfactual augmentation",
        "trains a fresh model on the training set joined by counterfactuals of it",
        ("training set", "twins", "held-out"),
        kind="repair",
        command=False,
    ),
    Method(
        "protected-column",
        protected_column,
        "Protected column",
        "holds a column of a table at its mean, exactly",
        ("training set", "column"),
        kind="repair",
        command=False,
    ),
)
"""By the name that a user types."""

TRAINING = {name: method for name, method in METHODS.items() if method.kind != "repair"}
REPAIRS = {name: method for name, method in METHODS.items() if method.kind == "repair"}


def choices(table: dict[str, Method]) -> tuple[str, ...]:
    """The names that a command offers."""
    return tuple(name for name, method in table.items() if method.command)


def help_text(table: dict[str, Method]) -> str:
    """What the methods of a command do, one line each, for its help, which is to fit on a screen."""
    offered = [method for method in table.values() if method.command]
    said = "; ".join(f"{method.name}: {method.help}{_needs(method)}" for method in offered)
    return said.replace(f"(needs {NEEDS['groups']})", "(needs the attribute)")


def _needs(method: Method) -> str:
    return f" (needs {', '.join(NEEDS[need] for need in method.needs)})" if method.needs else ""


def refuse_unmet(method: Method, dataset: Dataset) -> None:
    """Refuse, in one line, a method that needs what the data set lacks; name those that do without.

    Raises:
      ContractError: naming the method, what it needs and what to use instead.
    """
    train, others = dataset.splits["train"], choices(TRAINING if method.kind != "repair" else REPAIRS)
    lacking = {
        "groups": not (np.asarray(train.attribute) >= 0).any(),
        "held-out": "accept" not in dataset.splits,
        "held-out groups": "edit" not in dataset.splits or "accept" not in dataset.splits,
        "pairs": not any(len(batch.label) for name, batch in dataset.pairs.items() if name == "edit"),
        "twins": train.twin is None,
        "column": train.x.ndim != 2,
    }
    for need in method.needs:
        without = [name for name in others if need not in METHODS[name].needs]
        expected = f"one that does without {NEEDS[need]}: {', '.join(without)}"
        expect(not lacking.get(need, False), "method", expected, f"{method.name}, which needs {NEEDS[need]}")
    tables = ", ".join(name for name in others if not METHODS[name].pictures)
    good = train.x.ndim == 4 or not method.pictures
    expect(good, "method", f"one for tables: {tables}", f"{method.name}, which needs pictures")


def markdown_table() -> str:
    """The table of `docs/which_method.md`."""
    lines = ["| method | call | what it does | needs |", "| --- | --- | --- | --- |"]
    for method in METHODS.values():
        needs = ", ".join(NEEDS[need] for need in method.needs) or "nothing more"
        command = "debias" if method.kind == "repair" else "train"
        offered = f", `jaxdebias {command} --method {method.name}`" if method.command else ""
        called = f"`mitigate.{method.build.__name__}`{offered}"
        lines.append(f"| {method.title} | {called} | {method.help} | {needs} |")
    return "\n".join(lines) + "\n"
