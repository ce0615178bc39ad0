"""AUG-CELL: training without a shortcut that nobody has labelled.

Labels: needs none of the bias, neither for training nor for stopping nor for choosing. It needs an augmentation that
keeps the label and leaves the bias alone; the default turns, stretches and shifts pictures, so it fits a bias of
colour, texture or background and NOT one of position or orientation.

1. Guess of every sample what value of the bias it shows (`explain.cells`).
2. Count the cells (label, guess), and from now on treat the guess as the bias. Drawing every cell in proportion would
   show a few conflicting samples most of the time; correcting the logits alone would show them almost never. So half of
   the correction is done by drawing (weights to the power tau = 1/2) and what is left by an offset of the logits.
3. Train a fresh net on augmented pictures with drawing and offset; predictions use neither.
4. Compare with plain training on held-out samples whose cells are reweighed, and return plain training unless another
   candidate is better by two standard errors. One that is far worse on the held-out samples as they come has taken
   wrong labels for conflicting samples, or the true feature is hard to learn. So wrong labels are looked for
   (`explain.wrong_labels`) and 3 and 4 are done again without them; unless they turn out to be conflicting samples
   after all, see `predictable`.
5. Where the judges of step 1 hesitate over what they flag, return plain training all the same: the guesses are mistakes
   on hard samples, and of those any training gets more right that draws them often.

Where it fails: a bias that the augmentation destroys; more wrong labels than conflicting samples, which look alike and
are drawn as often where step 4 does not tell them apart; more than one bias, or one with more values than there are
classes, of which the guess is a mixture. `AugCellInfo.findings` names the signs of such cases.

Several trainings with guesses and a comparison between them are no `Learner`, which is one step of one training:
`aug_cell` runs them all.

Source: ours. The offset is that of Menon et al. 2021 given the guess, as in uLA (Tsirigotis et al. 2023).
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_type, expect
from jaxdebias.core import Batch, Classifier, Key, Learner, Params, cell_counts
from jaxdebias.explain._cells import PLAIN, CellsConfig, find_cells, plain_from, reweighing
from jaxdebias.explain._wrong_labels import find_wrong_labels
from jaxdebias.mitigate._aug_cell.cell_balanced import (
    CellBalancedConfig,
    CellState,
    CellTables,
    cell_balanced,
    cell_tables,
)
from jaxdebias.mitigate._aug_cell.comparison import CandidateScore, choose, predictable, score
from jaxdebias.mitigate._aug_cell.info import AugCellInfo, Stage
from jaxdebias.mitigate._gce import GceConfig, gce
from jaxdebias.train._augment import Augment, random_affine
from jaxdebias.train._optimizer import Optimizer
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig
from jaxdebias.train._sweep import sweep
from jaxdebias.train.feed import View


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to train in step 3."""

    name: str
    tau: float | None
    """None: plain training, which draws uniformly and offsets nothing."""
    augmented: bool
    input_dropout: float = 0.0


CANDIDATES = (
    Candidate(name="erm", tau=None, augmented=False),
    Candidate(name="erm, augmented", tau=None, augmented=True),
    Candidate(name="aug-cell", tau=0.5, augmented=True, input_dropout=0.2),
    Candidate(name="aug-cell, not augmented", tau=0.0, augmented=False, input_dropout=0.5),
)


@dataclass(frozen=True, kw_only=True)
class AugCellConfig:
    """The recipe; its numbers were chosen on Colored MNIST at 0.5 % conflicting samples, seed 0."""

    cells: CellsConfig = field(default_factory=CellsConfig)
    q: float = 0.7
    """Of the judges' generalised cross-entropy."""
    cleaning_rounds: int = 2
    """Of `find_wrong_labels`, which trains two nets in each, where it is needed, see `floor`; 0: never."""
    cleaning_steps: int = 1000
    candidates: tuple[Candidate, ...] = CANDIDATES
    """One of them is `erm`, which is returned unless another one is better."""
    steps: int = 4000
    """Of each candidate; the learning rate falls to 0 over them as a cosine."""
    batch_size: int = 256
    held_out: float = 0.1
    """Share of the samples on which the candidates are compared. 0: no comparison; the candidate `aug-cell` is trained
    on everything and returned, whatever the judges say."""
    margin: float = 2.0
    """Standard errors by which the best candidate must lead plain training."""
    plain: float = PLAIN
    """How sure the judges have to be of what they flag, see `explain.cells.plain_from`; where they are less, plain
    training is returned whatever the comparison says. 0: never."""
    floor: float = 0.10
    """Wrong labels are looked for if the plain held-out accuracy of the candidate `aug-cell` is further below that of
    plain training; without `cleaning_rounds`, such candidates are refused. 1: neither, for labels that are trusted."""

    def __post_init__(self):
        names = [candidate.name for candidate in self.candidates]
        expect({"erm", "aug-cell"} <= set(names), "config.candidates", "some, among them erm and aug-cell", names)
        expect(0 <= self.held_out < 1, "config.held_out", "a share in [0, 1)", self.held_out)
        expect(self.steps >= 1, "config.steps", "at least 1", self.steps)
        expect(0 <= self.plain <= 1, "config.plain", "a share in [0, 1]", self.plain)
        expect(self.floor >= 0, "config.floor", "at least 0", self.floor)
        expect(self.cleaning_rounds >= 0, "config.cleaning_rounds", "at least 0", self.cleaning_rounds)


def aug_cell(
    key: Key,
    network: Classifier,
    data: Batch,
    config: AugCellConfig = AugCellConfig(),
    optimizer: Optimizer = Optimizer(),
    *,
    judge: Classifier | None = None,
    augment: Augment | None = None,
    shared: Any = None,
    view: View | None = None,
    observe: Callable[[Stage], None] = lambda stage: None,
) -> tuple[Params, AugCellInfo]:
    """Find cells, train the candidates and return the parameters of the one that wins.

    `data.attribute` is not read. Deterministic given the key.

    Args:
      key: of guesses, of the held-out samples and of all trainings.
      network: the classifier to train.
      data: training rows; x, label and weight are used.
      config: the recipe.
      optimizer: of each candidate; its schedule is the recipe's.
      judge: of the nets that guess and that look for wrong labels; None: as the result. A weaker one may guess better:
        it has less of an eye for shapes.
      augment: keeps the label and the bias, and makes all else harder; None: `random_affine()`.
      shared: as in `train.sweep`.
      view: as in `train.sweep`.
      observe: is told which stage begins and how far the trainings are, for example `print`.

    Raises:
      ContractError: labels that are no integers from 0, too few rows.
      FloatingPointError: see `train.sweep`.
    """
    check_type("config", config, AugCellConfig)
    check_type("optimizer", optimizer, Optimizer)
    augment, judge = augment or random_affine(), judge or network
    key_cells, key_split, key_train = jax.random.split(key, 3)
    observe(Stage(f"{config.cells.folds * config.cells.repeats} judges guess, after {config.cells.steps} steps each"))
    cells = find_cells(
        key_cells,
        gce(judge, GceConfig(q=config.q), config.cells.optimizer, augment=augment),
        data,
        config.cells,
        shared=shared,
        view=view,
    )
    n, classes = cells.probability.shape
    guessed = data._replace(attribute=cells.guess, twin=None, mask=None, unit=None)
    confidence = cells.confidence(np.asarray(data.label))
    hesitant = confidence[0] < plain_from(confidence[1], classes, config.plain)
    order = np.asarray(jax.random.permutation(key_split, n))
    held, kept = np.sort(order[: round(config.held_out * n)]), np.sort(order[round(config.held_out * n) :])
    label, guess, everything = np.asarray(data.label), cells.guess, np.ones(n, bool)

    def train(
        candidates: Iterable[Candidate], sure: Bool[np.ndarray, "n"]
    ) -> tuple[dict[str, Params], dict[str, np.ndarray]]:
        """(parameters, classes of the held-out samples), of training on sure samples that are not held out."""
        params, predicted = {}, {}
        counted = kept[sure[kept]]
        counts = cell_counts(label[counted], guess[counted], classes, classes)
        rows = _take(guessed, kept)
        if not sure.all():
            weight = np.ones(n, np.float32) if data.weight is None else np.asarray(data.weight)
            rows = rows._replace(weight=(weight * sure)[kept])
        for candidate in candidates:
            learner = _learner(network, candidate, classes, augment, optimizer, config.steps)
            portions = _portions(config, len(kept))
            key_own = jax.random.fold_in(key_train, [one.name for one in config.candidates].index(candidate.name))
            (part,) = sweep(
                [key_own],
                learner,
                rows,
                portions,
                hyper=[_tables(candidate, counts)],
                shared=shared,
                view=view,
                chunks_per_look=max(1, portions.epochs // 10),
                observe=_progress(observe, candidate.name, portions.epochs),
            )
            state = jax.tree.map(lambda leaf: leaf[0], part.state)
            params[candidate.name] = state.variables
            if len(held):
                logits = _logits(state, (shared, _take(guessed, held)), learner=learner, view=view)
                predicted[candidate.name] = np.asarray(logits).argmax(axis=1)
        return params, predicted

    def compare(
        said: Mapping[str, np.ndarray], sure: Bool[np.ndarray, "n"], floor: float = config.floor
    ) -> dict[str, CandidateScore]:
        own, shown, trusted = label[held], guess[held], sure[held]
        counts = cell_counts(own[trusted], shown[trusted], classes, classes)
        weights = trusted * reweighing(counts)[own, shown]
        right = {name: (one == own).astype(float) for name, one in said.items()}
        return {name: score(one, right["erm"], weights, floor=floor) for name, one in right.items()}

    if not len(held):
        params, _ = train([one for one in config.candidates if one.name == "aug-cell"], everything)
        return params["aug-cell"], AugCellInfo(
            "aug-cell", {}, cells, float("nan"), held, ~everything, 0, params, confidence, hesitant
        )
    params, predicted = train(config.candidates, everything)
    sure, cleared, scores = everything, 0, compare(predicted, everything)
    if scores["aug-cell"].refused and config.cleaning_rounds and not hesitant:
        observe(Stage(f"wrong labels are looked for, in {config.cleaning_rounds} rounds"))
        suspect = _suspects(
            jax.random.fold_in(key_cells, 1), judge, guessed, classes, config, optimizer, augment, shared, view
        )
        if predictable(predicted["aug-cell"], label[held], guess[held], suspect[held], classes):
            cleared = int(suspect.sum())
        else:
            cleaned, said = train([one for one in config.candidates if one.tau is not None], ~suspect)
            params, predicted, sure = params | cleaned, predicted | said, ~suspect
        scores = compare(predicted, sure, floor=np.inf)
    chosen = "erm" if hesitant else choose(scores, margin=config.margin)
    wrong = (guess[held] != label[held]) & (predicted["erm"] != label[held])
    directed = float((predicted["erm"] == guess[held])[wrong].mean()) if wrong.any() else float("nan")
    return params[chosen], AugCellInfo(
        chosen, scores, cells, directed, held, ~sure, cleared, params, confidence, hesitant
    )


def _suspects(
    key: Key,
    judge: Classifier,
    guessed: Batch,
    classes: int,
    config: AugCellConfig,
    optimizer: Optimizer,
    augment: Augment,
    shared: Any,
    view: View | None,
) -> Bool[np.ndarray, "n"]:
    """Samples whose label is taken to be wrong, by nets that are trained like the candidate `aug-cell`."""
    candidate = next(one for one in config.candidates if one.name == "aug-cell")
    learner = _learner(judge, candidate, classes, augment, optimizer, config.cleaning_steps)
    return find_wrong_labels(
        key,
        learner,
        guessed,
        classes=classes,
        hyper=functools.partial(_tables, candidate),
        steps=config.cleaning_steps,
        rounds=config.cleaning_rounds,
        folds=config.cells.folds,
        batch_size=config.batch_size,
        shared=shared,
        view=view,
    ).suspect


def _learner(
    network: Classifier, candidate: Candidate, classes: int, augment: Augment, optimizer: Optimizer, steps: int
) -> Learner:
    return cell_balanced(
        network,
        CellBalancedConfig(input_dropout=candidate.input_dropout),
        replace(optimizer, schedule="cosine", steps=steps),
        augment=augment if candidate.augmented else None,
        groups=np.zeros((classes, classes), np.int32),
    )


def _tables(candidate: Candidate, counts: Int[np.ndarray, "k k"]) -> CellTables:
    if candidate.tau is None:
        return CellTables(np.ones_like(counts, np.float32), np.zeros_like(counts, np.float32))
    return cell_tables(counts, candidate.tau)


def _portions(config: AugCellConfig, n: int) -> FitConfig:
    epochs = -(-config.steps // steps_per_epoch(n, config.batch_size))
    return FitConfig(epochs=epochs, steps_per_epoch=-(-config.steps // epochs), batch_size=config.batch_size)


def _progress(
    observe: Callable[[Stage], None], name: str, epochs: int
) -> Callable[[tuple[int, ...], int, Mapping[str, float]], None]:
    return lambda runs, epoch, means: observe(Stage(name, epoch, epochs, means["loss"]))


def _take(batch: Batch, rows: np.ndarray) -> Batch:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], batch)


@functools.partial(jax.jit, static_argnames=("learner", "view"))
def _logits(state: CellState, rows: tuple[Any, Batch], *, learner: Learner, view: View | None) -> jax.Array:
    shared, held_out = rows

    def logits(both: Any, part: Batch) -> jax.Array:
        return learner.predict(both[0], (part if view is None else view(both[1], part)).x)

    return map_rows(logits, (state, shared), held_out)
