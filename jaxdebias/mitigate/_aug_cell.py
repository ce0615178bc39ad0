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
classes, of which the guess is a mixture. `AugCellInfo.said` names the signs of such cases.

Source: ours. The offset is that of Menon et al. 2021 given the guess, as in uLA (Tsirigotis et al. 2023).
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdebias.batching import map_rows
from jaxdebias.contracts import expect
from jaxdebias.core import Array, Batch, Classifier, Key, Learner, Params, as_float, cell_counts
from jaxdebias.explain._cells import PLAIN, Cells, CellsConfig, find_cells, plain_from, reweighing
from jaxdebias.explain._wrong_labels import find_wrong_labels
from jaxdebias.mitigate._gce import gce
from jaxdebias.train._augment import Augment, random_affine
from jaxdebias.train._losses import correct, cross_entropy, weighted_mean
from jaxdebias.train._optimizer import Optimizer, trainable, update, with_trainable
from jaxdebias.train._plans import steps_per_epoch
from jaxdebias.train._run import FitConfig
from jaxdebias.train._sweep import sweep
from jaxdebias.train.feed import View

SUSPICIOUS = 0.1
"""Share of wrong labels among the flagged samples that is worth a word; and a loss of accuracy."""
PREDICTABLE = 0.01
"""Chance of keeping samples that are wrongly labelled."""


class CellTables(NamedTuple):
    """What training uses of the cells; `state.hyper` of `cell_balanced`, so a sweep may map over it."""

    draw: Float[Array, "k a"]
    """How often a sample of the cell is drawn, relative to others."""
    offset: Float[Array, "k a"]
    """Added to logit k of a sample with attribute a, in training only."""


class CellState(NamedTuple):
    variables: Params
    opt_state: Any
    lr_scale: Float[Array, ""]
    hyper: CellTables


class CellInfo(NamedTuple):
    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    """Of the logits without offset, over what was drawn."""


def cell_tables(counts: Int[Array, "k a"] | Float[Array, "k a"], tau: float = 0.5) -> CellTables:
    """Draw weights and offsets that together make attribute and label independent.

    With weights r (see `reweighing`) a sample is drawn in proportion to r^tau. Let m be the mass of the cells so drawn;
    the offset is log m[y, a] - log m[., a], the log-odds that the drawing leaves.

    Args:
      counts: samples of label y and attribute a, guessed or known.
      tau: 1 balances by drawing alone (the offset is then log p(y)), 0 by the offset alone.

    >>> print(cell_tables(np.array([[90, 10], [20, 80]])).offset.round(3))
    [[-0.386 -1.342]
     [-1.138 -0.303]]
    """
    expect(0 <= tau <= 1, "tau", "a number in [0, 1]", tau)
    counts = np.asarray(counts, np.float64)
    draw = reweighing(counts) ** tau if tau else np.ones_like(counts)
    mass = counts * draw
    mass = mass + 1e-6 * mass.sum()
    offset = np.log(mass / mass.sum(axis=0, keepdims=True))
    return CellTables(draw.astype(np.float32), offset.astype(np.float32))


def cell_balanced(
    classifier: Classifier,
    optimizer: Optimizer = Optimizer(),
    *,
    classes: int,
    attributes: int,
    augment: Augment | None = None,
    input_dropout: float = 0.0,
) -> Learner:
    """Draws by cell and learns with offset logits; what step 3 of AUG-CELL trains, on any attribute.

    The tables come in from outside: `state._replace(hyper=cell_tables(counts))`, or `hyper=` of a sweep; those of a new
    state draw uniformly and offset nothing. The attribute is `batch.attribute`: put the guesses there, or, if it is
    known, leave it.

    Args:
      classes, attributes: k and a, the shape of the tables.
      augment: `(key, x) -> x`, applied to each batch.
      input_dropout: share of the input's numbers that are set to 0 in a step; the others are scaled up.
    """
    expect(0 <= input_dropout < 1, "input_dropout", "a share in [0, 1)", input_dropout)
    return _cell_balanced(classifier, optimizer, classes, attributes, augment, float(input_dropout))


@functools.cache
def _cell_balanced(
    classifier: Classifier,
    optimizer: Optimizer,
    classes: int,
    attributes: int,
    augment: Callable[[Key, Array], Array] | None,
    input_dropout: float,
) -> Learner:
    def init(key: Key, batch: Batch) -> CellState:
        variables = classifier.init(key, batch.x)
        neutral = CellTables(jnp.ones((classes, attributes)), jnp.zeros((classes, attributes)))
        return CellState(variables, optimizer.build().init(trainable(variables)), jnp.ones((), jnp.float32), neutral)

    def step(key: Key, state: CellState, batch: Batch) -> tuple[CellState, CellInfo]:
        key_augment, key_dropout, key_train = jax.random.split(key, 3)
        x = batch.x if augment is None else augment(key_augment, batch.x)
        if input_dropout:
            x = as_float(x)
            x = jnp.where(jax.random.bernoulli(key_dropout, input_dropout, x.shape), 0.0, x / (1.0 - input_dropout))
        offset = state.hyper.offset.T[batch.attribute]

        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Params]]:
            logits, variables = classifier.train(key_train, with_trainable(state.variables, params), x)
            return weighted_mean(cross_entropy(logits + offset, batch.label), batch.weight), (logits, variables)

        params = trainable(state.variables)
        (loss, (logits, variables)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        params, opt_state = update(optimizer.build(), gradient, state.opt_state, params, state.lr_scale)
        state = state._replace(variables=with_trainable(variables, params), opt_state=opt_state)
        return state, CellInfo(loss, weighted_mean(correct(logits, batch.label), batch.weight))

    def predict(state: CellState, x: Array) -> jax.Array:
        return classifier.apply(state.variables, x)

    def weights(state: CellState, data: Batch) -> jax.Array:
        drawn = state.hyper.draw[data.label, data.attribute]
        return drawn if data.weight is None else drawn * data.weight

    return Learner(init=init, step=step, predict=predict, weights=weights)


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
    """Of each candidate: Adam, falling to 0 as a cosine."""
    batch_size: int = 256
    learning_rate: float = 1e-3
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


class CandidateScore(NamedTuple):
    """A candidate on the held-out samples."""

    accuracy: float
    """Plain. On biased data it prefers a biased model."""
    cell_accuracy: float
    """With the cells reweighed so that guess and label are independent: what candidates are ranked by. It is too
    optimistic where most conflicting cells have no held-out sample; use it to rank, not to report."""
    standard_error: float
    """Of cell_accuracy."""
    lead: float
    """Over plain training: difference of the cell accuracies."""
    lead_error: float
    """Standard error of the lead, both models on the same samples."""
    refused: bool
    """For its plain accuracy."""


class Stage(NamedTuple):
    """How far a call of `aug_cell` is; printed, it is a line."""

    name: str
    """A candidate's, or a sentence."""
    epoch: int = 0
    epochs: int = 0
    """Of this candidate; 0 where nothing is counted."""
    loss: float = float("nan")

    def __str__(self) -> str:
        return f"{self.name}: epoch {self.epoch} of {self.epochs}, loss {self.loss:.4g}" if self.epochs else self.name


class AugCellInfo(NamedTuple):
    """What a person needs to judge the result."""

    chosen: str
    """Name of the candidate that is returned."""
    scores: dict[str, CandidateScore]
    """Empty without held-out samples."""
    cells: Cells
    directed: float
    """Of plain training's errors on flagged held-out samples, the share that goes to the guess; by chance it would be
    1 / (k - 1). Near chance there is no shortcut that the guesses describe: they are merely hard or wrongly labelled
    samples. NaN where plain training makes no such error."""
    held_out: Int[np.ndarray, "m"]
    """Rows of the data on which the candidates were compared."""
    suspect: Bool[np.ndarray, "n"]
    """Samples that were left out as wrongly labelled; plain training has them all."""
    cleared: int
    """Samples that had looked wrongly labelled and were kept, since their labels are `predictable`."""
    trained: dict[str, Params]
    """Parameters of every candidate."""
    confidence: tuple[float, float]
    """See `Cells.confidence`."""
    hesitant: bool
    """Whether the judges hesitate over what they flag. They are nearly as sure of flagged samples as of others where
    there is a shortcut that the views leave (coloured digits), and in doubt where there is none or where it is a place
    in the picture."""

    @property
    def said(self) -> list[str]:
        """What is odd about the result, a sentence each; empty if nothing is."""
        flagged, suspect = round(self.cells.flagged_share * len(self.suspect)), int(self.suspect.sum())
        found = []
        if self.hesitant:
            found.append(
                f"No structured bias found: the judges are sure to {self.confidence[0]:.2f} where guess and "
                f"label differ, to {self.confidence[1]:.2f} elsewhere, so most of these samples are merely "
                "hard. Not found in this way: a shortcut that the augmentation itself changes (with geometric "
                "views: position, size, orientation), or one of which there are too few samples to learn it."
            )
        if suspect > SUSPICIOUS * flagged:
            found.append(f"{suspect} of {flagged} flagged samples look wrongly labelled and were left out.")
        if self.cleared:
            found.append(
                f"{self.cleared} of {flagged} flagged samples looked wrongly labelled and were kept: the "
                "labels of those that were held out could be predicted, which wrong labels cannot."
            )
        refused = [name for name, one in self.scores.items() if one.refused]
        if refused:
            found.append(
                f"Refused: {', '.join(refused)}; far worse than plain training on held-out samples as they "
                "come, a sign of wrong labels among the flagged ones."
            )
        loss = self.scores["erm"].accuracy - self.scores[self.chosen].accuracy if self.scores else 0.0
        if loss > SUSPICIOUS:
            found.append(
                "On held-out samples as they come, most of which go with the shortcut, it is "
                f"{100 * loss:.0f} points below plain training."
            )
        if self.chosen == "erm":
            found.append(
                "Plain training is returned."
                if self.hesitant
                else "No candidate is clearly better than plain training, which is returned."
            )
        return found


def aug_cell(
    key: Key,
    classifier: Classifier,
    data: Batch,
    config: AugCellConfig = AugCellConfig(),
    *,
    judge: Classifier | None = None,
    augment: Augment | None = None,
    shared: Any = None,
    view: View | None = None,
    observe: Callable[[Stage], None] = lambda stage: None,
) -> tuple[Params, AugCellInfo]:
    """Finds cells, trains the candidates and returns the parameters of the one that wins.

    `data.attribute` is not read. Deterministic given the key.

    Args:
      classifier: of the result.
      judge: of the nets that guess and that look for wrong labels; None: as the result. A weaker one may guess better:
        it has less of an eye for shapes.
      augment: keeps the label and the bias, and makes all else harder; None: `random_affine()`.
      shared, view: as in `train.sweep`.
      observe: is told which stage begins and how far the trainings are, for example `print`.

    Raises:
      ContractError: labels that are no integers from 0, too few rows.
      FloatingPointError: see `train.sweep`.
    """
    augment, judge = augment or random_affine(), judge or classifier
    key_cells, key_split, key_train = jax.random.split(key, 3)
    observe(Stage(f"{config.cells.folds * config.cells.repeats} judges guess, after {config.cells.steps} steps each"))
    cells = find_cells(
        key_cells,
        gce(judge, config.cells.optimizer, q=config.q, augment=augment),
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
            learner = _learner(classifier, candidate, classes, augment, config.learning_rate, config.steps)
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
        suspect = _suspects(jax.random.fold_in(key_cells, 1), judge, guessed, classes, config, augment, shared, view)
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
    augment: Augment,
    shared: Any,
    view: View | None,
) -> Bool[np.ndarray, "n"]:
    """Samples whose label is taken to be wrong, by nets that are trained like the candidate `aug-cell`."""
    candidate = next(one for one in config.candidates if one.name == "aug-cell")
    learner = _learner(judge, candidate, classes, augment, config.learning_rate, config.cleaning_steps)
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


def predictable(
    predicted: Int[np.ndarray, "m"],
    label: Int[np.ndarray, "m"],
    guess: Int[np.ndarray, "m"],
    suspect: Bool[np.ndarray, "m"],
    classes: int,
) -> bool:
    """Whether the labels of suspects can be learned from other suspects: then they are not wrong.

    A sample with a wrong label looks like one with the right label of the class that is guessed. A model that learned
    from such labels therefore says the label of another such sample no more often than it takes any sample that goes
    with its guess for that class, by chance one of the k - 1 others. One-sided binomial test at `PREDICTABLE`.

    Args:
      predicted: by a model that was trained with the suspects, of held-out samples.
      suspect: which of the held-out samples look wrongly labelled; their label is not their guess.

    >>> label, guess = np.array([0] * 90 + [1] * 10), np.zeros(100, int)
    >>> said = np.array([0] * 45 + [1] * 45 + [1] * 5 + [0] * 5)  # half of both: the label makes no difference
    >>> predictable(said, label, guess, label != guess, 2)
    False
    """
    from scipy.stats import binom

    strays = (predicted != guess)[guess == label].mean() / (classes - 1) if (guess == label).any() else 1.0
    right = int((predicted == label)[suspect].sum())
    return bool(binom.sf(right - 1, int(suspect.sum()), strays) < PREDICTABLE)


def score(
    right: Float[Array, "m"], erm_right: Float[Array, "m"], weights: Float[Array, "m"], *, floor: float
) -> CandidateScore:
    """A candidate against plain training: 0/1 for each held-out sample, and the samples' weights."""
    share = weights / weights.sum()

    def mean_and_error(values: np.ndarray) -> tuple[float, float]:
        mean = float((share * values).sum())
        return mean, float(np.sqrt((share**2 * (values - mean) ** 2).sum()))

    accuracy, error = mean_and_error(right)
    lead, lead_error = mean_and_error(right - erm_right)
    return CandidateScore(
        float(right.mean()), accuracy, error, lead, lead_error, bool(right.mean() < erm_right.mean() - floor)
    )


def choose(scores: Mapping[str, CandidateScore], *, margin: float) -> str:
    """The candidate of the highest cell accuracy that is not refused, or `erm` where it does not lead clearly."""
    best = max((name for name in scores if not scores[name].refused), key=lambda name: scores[name].cell_accuracy)
    return best if scores[best].lead > margin * scores[best].lead_error else "erm"


def _learner(
    classifier: Classifier, candidate: Candidate, classes: int, augment: Augment, learning_rate: float, steps: int
) -> Learner:
    optimizer = Optimizer(learning_rate=learning_rate, schedule="cosine", steps=steps)
    return cell_balanced(
        classifier,
        optimizer,
        classes=classes,
        attributes=classes,
        augment=augment if candidate.augmented else None,
        input_dropout=candidate.input_dropout,
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
