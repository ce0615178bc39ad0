import functools
import inspect
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train.glyphs import glyphs

from jaxdebias import models
from jaxdebias.batching import predict_rows
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.explain import Cells, CellsConfig, WrongLabels, find_cells
from jaxdebias.mitigate import AugCellConfig, AugCellInfo, CellBalancedConfig, aug_cell, cell_balanced, cell_tables
from jaxdebias.mitigate._aug_cell.comparison import CandidateScore, choose, predictable, score
from jaxdebias.mitigate._aug_cell.training import CANDIDATES, Candidate
from jaxdebias.train import FitConfig, Optimizer, fit, random_affine

COUNTS = np.array([[90, 10], [20, 80]])
MLP = models.mlp(hidden=(64, 64), classes=4)
KEY = jax.random.key(0)
FOUR = np.ones((4, 4), int)
PLAIN, _, CELLS, _ = CANDIDATES
SMALL = AugCellConfig(
    cells=CellsConfig(steps=10, batch_size=64), steps=20, cleaning_steps=20, batch_size=64, candidates=(PLAIN, CELLS)
)


@functools.cache
def few():
    """Few rows, and what becomes of them by the short recipe: one shape for many tests, so one set of programs."""
    data = glyphs(200, conflicting=0.05)
    return data, *aug_cell(KEY, MLP, data, SMALL)


def test_half_weights_half_offset():
    tables = cell_tables(COUNTS)
    mass = COUNTS * tables.draw
    np.testing.assert_allclose(mass, [[70.356236, 21.213203], [33.166248, 60]], atol=1e-5)
    np.testing.assert_allclose(tables.offset[:, 0], [-0.386217, -1.138256], atol=1e-5)
    np.testing.assert_allclose(tables.offset[:, 1], [-1.342454, -0.302733], atol=1e-5)


def test_all_weights_or_all_offset():
    counts = np.array([[95, 3, 2], [4, 90, 6], [1, 7, 92]])
    drawn = cell_tables(counts, 1.0)
    prior = counts.sum(1) / counts.sum()
    np.testing.assert_allclose(drawn.offset, np.log(prior)[:, None] * np.ones((1, 3)), atol=1e-5)
    offset = cell_tables(counts, 0.0)
    np.testing.assert_array_equal(offset.draw, 1)
    mass = counts + 1e-6 * counts.sum()  # so that empty cells stay finite
    np.testing.assert_allclose(offset.offset, np.log(mass / mass.sum(0)), atol=1e-5)
    common = np.array([[40, 30, 30], [35, 30, 35], [25, 40, 35]])  # among cells of some size the millionth is not seen
    np.testing.assert_allclose(cell_tables(common, 0.0).offset, np.log(common / common.sum(0)), atol=1e-5)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_a_model_that_sees_only_the_guess_learns_nothing(tau):
    """Offset and weights together leave nothing for the guess to say: the optimum is constant."""
    tables, (label, guess) = cell_tables(COUNTS, tau), np.divmod(np.arange(4), 2)
    mass = (COUNTS * tables.draw).ravel() / (COUNTS * tables.draw).sum()

    def loss(logits):  # [guess, class]
        shown = jax.nn.log_softmax(logits[guess] + tables.offset.T[guess])
        return -(mass * shown[np.arange(4), label]).sum()

    logits, gradient = jnp.ones((2, 2)) * jnp.array([[1.0], [-1.0]]) * jnp.array([[1.0, 0.0]]), jax.jit(jax.grad(loss))
    for _ in range(3000):
        logits = logits - 2.0 * gradient(logits)
    difference = logits[:, 0] - logits[:, 1]
    assert abs(difference[0] - difference[1]) < 1e-2


def test_draws_and_offsets_are_used():
    """A step with offset equals one on shifted logits; draws follow the table."""
    learner = cell_balanced(MLP, optimizer=Optimizer(name="sgd", learning_rate=0.1), groups=FOUR)
    data = glyphs(64, conflicting=0.5)
    state = learner.init(KEY, data)
    tables = cell_tables(np.arange(1, 17).reshape(4, 4))
    state = state._replace(hyper=jax.tree.map(jnp.asarray, tables))
    _, info = learner.step(KEY, state, data)
    logits = MLP.apply(state.variables, data.x) + tables.offset.T[data.attribute]
    expected = -jax.nn.log_softmax(logits)[np.arange(64), data.label].mean()
    assert float(info.loss) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(learner.weights(state, data), tables.draw[data.label, data.attribute], rtol=1e-6)


@pytest.mark.slow
def test_input_dropout_keeps_the_mean():
    learner = cell_balanced(MLP, CellBalancedConfig(input_dropout=0.5), groups=FOUR)
    data = glyphs(64, conflicting=0.5)
    seen = []
    spy = MLP._replace(train=lambda key, params, x: (seen.append(x), MLP.train(key, params, x))[1])
    learner = cell_balanced(spy, CellBalancedConfig(input_dropout=0.5), groups=FOUR)
    state = learner.init(KEY, data)
    with jax.disable_jit():
        learner.step(KEY, state, data)
    x = np.asarray(data.x) / 255.0
    got = np.asarray(seen[0])
    kept = got != 0
    np.testing.assert_allclose(got[kept], 2 * x[kept], rtol=1e-5)
    assert abs(kept[x > 0].mean() - 0.5) < 0.02


@pytest.mark.slow
@pytest.mark.unoptimised
def test_no_function_takes_a_bias_array():
    for fn in (find_cells, aug_cell):
        assert not {"attribute", "bias", "group", "groups"} & set(inspect.signature(fn).parameters)
    data, known, info = few()
    unknown, other = aug_cell(KEY, MLP, data._replace(attribute=np.full(200, -1, np.int32)), SMALL)
    jax.tree.map(np.testing.assert_array_equal, known, unknown)
    assert info.scores == other.scores


def test_selection_by_hand():
    right, erm = np.array([1.0, 1, 0, 1]), np.array([1.0, 1, 0, 0])
    weights = np.array([1.0, 1, 2, 4])
    got = score(right, erm, weights, floor=0.1)
    assert got.accuracy == 0.75
    assert got.cell_accuracy == pytest.approx(6 / 8)
    assert got.lead == pytest.approx(4 / 8)
    share, d = weights / 8, right - erm
    assert got.lead_error == pytest.approx(np.sqrt((share**2 * (d - 0.5) ** 2).sum()))
    assert not got.refused
    assert score(erm, right, weights, floor=0.1).refused


def candidate(cell_accuracy, lead, lead_error, *, refused=False):
    return CandidateScore(0.9, cell_accuracy, 0.01, lead, lead_error, refused)


def test_plain_training_wins_ties_and_refusals():
    erm = candidate(0.80, 0.0, 0.0)
    assert choose({"erm": erm, "a": candidate(0.90, 0.10, 0.02)}, margin=2.0) == "a"
    assert choose({"erm": erm, "a": candidate(0.83, 0.03, 0.02)}, margin=2.0) == "erm"
    assert choose({"erm": erm, "a": candidate(0.90, 0.10, 0.02, refused=True)}, margin=2.0) == "erm"
    assert choose({"erm": erm}, margin=2.0) == "erm"


@functools.cache
def glyph_result():
    data = glyphs(4000, conflicting=0.02)
    # Nothing held out: of 400 rows eight would conflict, too few to choose by.
    config = AugCellConfig(cells=CellsConfig(steps=100), steps=1000, held_out=0.0)
    params, info = aug_cell(KEY, MLP, data, config, augment=random_affine(shift=1.0))
    return data, params, info


@pytest.mark.slow
def test_finds_and_removes_the_colour_of_glyphs():
    data, params, info = glyph_result()
    flagged, conflicting = info.cells.guess != data.label, data.attribute != data.label
    assert flagged[conflicting].mean() >= 0.9
    test = glyphs(2000, conflicting=0.75, seed=1)
    plain = fit(KEY, cell_balanced(MLP, groups=FOUR), data, FitConfig(epochs=30))

    def accuracy(variables):
        return float((predict_rows(MLP.apply, variables, test.x).argmax(1) == test.label).mean())

    assert accuracy(params) >= accuracy(plain.state.variables) + 0.20


@pytest.mark.slow
def test_where_colours_mean_nothing_plain_training_is_returned():
    """Even where the comparison prefers another: draws by guesses that are mistakes help with what is mistaken."""
    data = glyphs(4000, conflicting=0.75)
    config = AugCellConfig(cells=CellsConfig(steps=100), steps=200, candidates=(PLAIN, CELLS))
    params, info = aug_cell(KEY, MLP, data, config, augment=random_affine(shift=1.0))
    assert (info.hesitant, info.chosen) == (True, "erm")
    assert info.findings[0].startswith("No structured bias found")
    jax.tree.map(np.testing.assert_array_equal, params, info.trained["erm"])


@pytest.mark.slow
@pytest.mark.unoptimised
def test_says_how_far_it_is():
    told = []
    aug_cell(KEY, MLP, few()[0], replace(SMALL, plain=1.0), observe=told.append)
    assert str(told[0]) == "2 judges guess, after 10 steps each"
    assert [stage[:3] for stage in told[1:]] == [(name, i, 7) for name in ("erm", "aug-cell") for i in range(1, 8)]
    assert str(told[1]).startswith("erm: epoch 1 of 7, loss 1.")


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize(("plain", "chosen"), [(0.0, "aug-cell"), (1.0, "erm")])
def test_hesitation_overrules_the_comparison(monkeypatch, plain, chosen):
    monkeypatch.setattr(sys.modules[aug_cell.__module__], "choose", lambda scores, margin: "aug-cell")
    params, info = aug_cell(KEY, MLP, few()[0], replace(SMALL, plain=plain))
    assert (info.hesitant, info.chosen) == (chosen == "erm", chosen)
    jax.tree.map(np.testing.assert_array_equal, params, info.trained[chosen])


@pytest.mark.slow
@pytest.mark.unoptimised
def test_without_held_out_rows_one_candidate_is_trained():
    data, *_ = few()
    _, info = aug_cell(KEY, MLP, data, replace(SMALL, held_out=0.0))
    assert (info.chosen, info.scores, len(info.held_out)) == ("aug-cell", {}, 0)
    assert np.isnan(info.directed)


def info(cells=None, *, chosen="aug-cell", confidence=(0.95, 0.99), hesitant=False, suspect=0, cleared=0, scores=None):
    """100 samples, 10 of them flagged."""
    cells = cells or Cells(np.zeros(100), np.zeros((100, 2)), np.zeros((1, 100)), np.array([[45, 5], [5, 45]]))
    return AugCellInfo(
        chosen, scores or {}, cells, 0.9, np.arange(10), np.arange(100) < suspect, cleared, {}, confidence, hesitant
    )


def test_says_what_is_odd():
    assert info().findings == []
    hesitant, plain = info(chosen="erm", confidence=(0.69, 0.90), hesitant=True).findings
    assert "No structured bias found" in hesitant
    assert "0.69" in hesitant
    assert "position, size, orientation" in hesitant
    assert plain == "Plain training is returned."
    (wrong,) = info(suspect=4).findings
    assert wrong.startswith("4 of 10 flagged samples look wrongly labelled")
    assert info(suspect=1).findings == []
    (kept,) = info(cleared=4).findings
    assert kept.startswith("4 of 10 flagged samples looked wrongly labelled and were kept")
    scores = {"erm": candidate(0.5, 0.0, 0.0), "aug-cell": candidate(0.9, 0.4, 0.02)._replace(accuracy=0.7)}
    (loss,) = info(scores=scores).findings
    assert "20 points below plain training" in loss
    scores = {"erm": candidate(0.8, 0.0, 0.0), "a": candidate(0.9, 0.1, 0.02, refused=True)}
    refused, plain = info(chosen="erm", scores=scores).findings
    assert refused.startswith("Refused: a;")
    assert "plain training" in plain


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize(("refused", "learnable"), [(False, False), (True, False), (True, True)])
def test_wrong_labels_are_left_out_unless_they_can_be_learned(monkeypatch, refused, learnable):
    """What the search finds is left out of training and comparison; plain training is not repeated."""
    data, asked = few()[0], []
    _, before = aug_cell(KEY, MLP, data, replace(SMALL, cleaning_rounds=0))
    suspect, module = np.arange(200) % 10 == 0, sys.modules[aug_cell.__module__]

    def search(key, learner, rows, **options):
        asked.append(options)
        return WrongLabels(suspect, np.zeros((200, 4), np.float32))

    def judged(right, base, weights, *, floor):
        one = score(right, base, weights, floor=floor)
        return one._replace(refused=refused and floor < np.inf and right is not base)

    monkeypatch.setattr(module, "find_wrong_labels", search)
    monkeypatch.setattr(module, "predictable", lambda *rows: learnable)
    monkeypatch.setattr(module, "score", judged)
    _, found = aug_cell(KEY, MLP, data, replace(SMALL, plain=0.0))
    left_out = refused and not learnable
    assert len(asked) == refused
    np.testing.assert_array_equal(found.suspect, suspect & left_out)
    assert found.cleared == (20 if refused and learnable else 0)
    assert not any(one.refused for one in found.scores.values())
    same = {
        name: all(jax.tree.leaves(jax.tree.map(np.array_equal, found.trained[name], before.trained[name])))
        for name in ("erm", "aug-cell")
    }
    assert same == {"erm": True, "aug-cell": not left_out}


@pytest.mark.parametrize("classes", [2, 10])
def test_wrong_labels_are_not_predictable_and_conflicting_samples_are(classes):
    """A model that has learned from wrong labels strays as often where the label is right."""
    rng = np.random.default_rng(0)
    guess = rng.integers(0, classes, 4000)
    suspect = np.arange(4000) < 60
    label = np.where(suspect, (guess + rng.integers(1, classes, 4000)) % classes, guess)

    def strays(share):
        other = (guess + rng.integers(1, classes, 4000)) % classes
        return np.where(rng.random(4000) < share, other, guess)

    kept = [predictable(strays(0.4), label, guess, suspect, classes) for _ in range(300)]
    assert np.mean(kept) < 0.03
    learned = np.where(suspect & (rng.random(4000) < 0.7), label, strays(0.2))
    assert predictable(learned, label, guess, suspect, classes)
    assert not predictable(guess, label, guess, suspect & False, classes)  # none is held out


def test_a_model_that_strays_hits_a_given_label_by_chance_only():
    """Of ten classes, a fifth of strays is a fiftieth for any one label: 9 of 60 right are far more than that."""
    guess, suspect = np.zeros(1060, int), np.arange(1060) < 60
    label = np.where(suspect, 1, 0)
    predicted = np.where(suspect, np.where(np.arange(1060) < 9, 1, 0), np.where(np.arange(1060) < 260, 2, 0))
    assert predictable(predicted, label, guess, suspect, classes=10)
    assert not predictable(np.where(suspect & (np.arange(1060) >= 2), 0, predicted), label, guess, suspect, classes=10)


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("switched_off", [{"cleaning_rounds": 0, "plain": 0.0}, {"plain": 1.0}])
def test_wrong_labels_are_not_looked_for(monkeypatch, switched_off):
    """If told so, and where hesitation has decided."""

    def judged(right, base, weights, *, floor):
        return score(right, base, weights, floor=floor)._replace(refused=right is not base)

    monkeypatch.setattr(sys.modules[aug_cell.__module__], "score", judged)
    monkeypatch.delattr(sys.modules[aug_cell.__module__], "find_wrong_labels")
    _, found = aug_cell(KEY, MLP, few()[0], replace(SMALL, **switched_off))
    assert found.chosen == "erm"
    assert found.scores["aug-cell"].refused
    assert not found.suspect.any()


def test_refuses():
    with pytest.raises(ContractError, match="erm"):
        AugCellConfig(candidates=(Candidate(name="aug-cell", tau=0.5, augmented=True),))
    with pytest.raises(ContractError, match="plain"):
        AugCellConfig(plain=1.1)
    with pytest.raises(ContractError, match="tau"):
        cell_tables(COUNTS, 2.0)
    with pytest.raises(ContractError, match="input_dropout"):
        CellBalancedConfig(input_dropout=1.0)
    assert {one.name for one in CANDIDATES} >= {"erm", "aug-cell"}


@pytest.mark.slow
@pytest.mark.unoptimised
def test_views():
    """Pictures drawn inside the step give what stored ones give."""
    data, plain, _ = few()
    rows = data._replace(x=np.arange(200, dtype=np.int32))
    lazy, _ = aug_cell(KEY, MLP, rows, SMALL, shared=data.x, view=_indexed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), lazy, plain)


def _indexed(shared, batch: Batch) -> Batch:
    return batch._replace(x=shared[batch.x])
