"""FMD for language models: an edit of few parameters after which sentence pairs are about equally probable.

The same three steps as for classifiers (`fmd`), on positions instead of examples (`influence.positions`):

    bias        mean over pairs of |log p(stereotype) - log p(other sentence)| per token
    influence   of training sentences on it: `influence_on_bias`
    edit        H^-1 times the pairs' gradient, in re-linearised rounds with a line search (`edit_rounds`)

The line search. A candidate may raise the perplexity of held-out texts by a share of that of the unedited model, which
is released in equal parts over the first half of the rounds; among those, the least bias of held-out pairs. At the end
the edit is kept only if that bias has fallen by more than chance explains; else the very parameters that went in come
back. Candidates are 0 and 2^-9 .. 2, in root mean square change of the logits under the model's own probabilities:
u^2 / 2 is the Kullback-Leibler divergence from the present model, to second order, mean over positions.

A text in which the bias is true is predicted less well without it: measure perplexity on texts that are not biased.
Only pairs from other templates and topics can tell whether the edit holds beyond its own. Source: FMD (Chen et al.).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdebias.batching import map_rows
from jaxdebias.contracts import check_choice, check_finite, expect
from jaxdebias.core import Array, Key, Params
from jaxdebias.explain.influence._conjugate_gradient import ConjugateGradient
from jaxdebias.explain.influence._cut import Where
from jaxdebias.explain.influence._inverse import Solver
from jaxdebias.explain.influence._objective import HeadProblem, head_problem
from jaxdebias.explain.influence._solvers import factor
from jaxdebias.language._datasets import SentencePair
from jaxdebias.language._positions import PairPositions, Positions, pair_positions, text_positions, token_block
from jaxdebias.language._sentence_influence import (
    ROWS,
    PairRows,
    TokenRows,
    log_probabilities,
    sentence_bias_gradient,
    sentence_changes,
    sentence_differences,
    sentence_gradient,
    soft_sentence_pair_bias,
)
from jaxdebias.language.models._model import LanguageModel
from jaxdebias.language.models._tokenizer import Tokenizer
from jaxdebias.mitigate._fmd.line_search import candidates, judge, moved
from jaxdebias.mitigate._fmd.rounds import EditRound, edit_in_rounds

FILL = 512
"""Positions of the curvature come in multiples of this."""


@dataclass(frozen=True, kw_only=True)
class LanguageFmdConfig:
    """Defaults are ours."""

    block: str | Where = "top"
    """What is edited: `mlp`, the perceptron of the last block; `transform`, the final transform and the bias of the
    logits; `top`, both; or any block, see `token_block`."""
    rounds: int = 10
    """Re-linearisations at most; a round that finds no better head ends the edit."""
    direction: str = "gradB"
    """`gradB`: down the gradient of the bias; a pair that is even has none. `ext`: the paper's external pairs, which go
    on pushing every pair in its direction."""
    damping: float = 1e-2
    """Added to the curvature of the MEAN of the losses of positions; that of the sum is their number times this. On
    small models less damping fits the edit's own pairs better, and what it does carries less far beyond them."""
    curvature_texts: int = 256
    """Random training texts for the curvature, drawn once; all of them where there are fewer."""
    perplexity: float = 0.02
    """Share by which the held-out perplexity may rise in the whole edit."""
    significance: float = 3.0
    """Standard errors, over the topics of the held-out pairs, by which the bias must fall for the edit to be kept;
    0: any fall will do."""
    steps_per_octave: int = 1
    """Candidates per factor of 2."""
    solver: Solver | None = None
    """None: 30 conjugate gradients on the Gauss-Newton matrix. `Ekfac()` for the perceptron of a large model; it takes
    no normalisation, so the block has to be `mlp`."""

    def __post_init__(self):
        check_choice("direction", self.direction, ("ext", "gradB"))
        for name in ("rounds", "curvature_texts", "steps_per_octave"):
            expect(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        expect(self.damping > 0, "damping", "more than 0: the softmax Hessian is singular", self.damping)
        for name in ("perplexity", "significance"):
            expect(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))


class LanguageJudged(NamedTuple):
    """A head, or m of them, on what is held out."""

    bias: Array
    nll: Array
    """Mean negative log-probability of a token; its exp is the perplexity."""


class LanguageView(NamedTuple):
    """What is held out, as cached features; see `line_search`."""

    pairs: PairRows
    texts: TokenRows

    @property
    def bias_data(self) -> PairRows:
        return self.pairs

    def judged(self, head: Any, bias_fn: Callable) -> LanguageJudged:
        return LanguageJudged(bias_fn(head, self.pairs), -log_probabilities(head, self.texts).mean())

    def unit(self, head: Any, direction: Any) -> jax.Array:
        """Rms change of the logits at t = 1 under the model's own probabilities, over the positions of the pairs."""
        variance = map_rows(_variance, (head, direction), self.pairs.rows.features, batch_size=ROWS // 2)
        return jnp.sqrt(variance.mean())


class LanguageFmdRound(NamedTuple):
    """One round. Bias and perplexity are those of what is held out, at the head after the round."""

    u: float
    """The chosen step, see above; 0: none was better."""
    t: float
    """The same, as a multiple of the step."""
    predicted_change: float
    """Of the bias, to first order in the chosen step."""
    achieved_change: float
    bias: float
    perplexity: float
    residual: float
    iterations: int
    """Of the solve; 0 for a direct one."""
    seconds: float


class LanguageFmdInfo(NamedTuple):
    """What the edit did, on what is held out for it. Report on other pairs and texts, not on these."""

    accepted: bool
    """False: the parameters that came back are the very ones that went in."""
    bias_before: float
    """Nats for each token."""
    bias_after: float
    perplexity_before: float
    perplexity_after: float
    fall: float
    """Of the bias by all rounds together, in standard errors; what `significance` is asked of."""
    rounds: tuple[LanguageFmdRound, ...]
    """All that were tried, also where the edit was not accepted."""
    parameters: int
    """In the block."""
    seconds: float


class SentenceInfluence(NamedTuple):
    """How training sentences bear on the bias."""

    change: Float[np.ndarray, " n"]
    """Predicted change of the bias if a sentence were removed. Negative: a harmful one."""
    bias: float
    residual: float
    """Of the solve."""


def language_fmd(
    key: Key,
    model: LanguageModel,
    tokenizer: Tokenizer,
    params: Params,
    texts: Sequence[str],
    pairs: Sequence[SentencePair],
    accept_texts: Sequence[str],
    accept_pairs: Sequence[SentencePair],
    config: LanguageFmdConfig = LanguageFmdConfig(),
) -> tuple[Params, LanguageFmdInfo]:
    """Edits a language model so that the two sentences of a pair are more alike to it.

    What lies before the block is computed once, only the block changes, and every other leaf of params comes back as
    the same object. A second call with equal shapes compiles nothing.

    Args:
      key: draws the texts for the curvature.
      model: the language model.
      tokenizer: the language model.
      params: the language model.
      texts: as it was trained on, for the curvature of its objective: some hundreds.
      pairs: what the edit is made from. None: the edit is the identity.
      accept_texts: held out, for the perplexity of the candidates.
      accept_pairs: held out, for their bias; of other topics than `pairs`, or the search believes what it fits.
      config: see there.

    Returns:
      (params, info). With `info.accepted` False, params is the object that was passed.

    Raises:
      ContractError: no texts or pairs where some are needed, pairs that are too long or all the same, values that are
        not finite.
    """
    began = time.perf_counter()
    head, features, replace = token_block(model, params, config.block)

    def paired(some: Sequence[SentencePair]) -> PairRows:
        return pair_rows(features, params, pair_positions(model, tokenizer, some))

    view = LanguageView(
        paired(accept_pairs), token_rows(features, params, text_positions(model, tokenizer, accept_texts, end=False))
    )
    before = judge(head, view, soft_sentence_pair_bias)
    check_finite("the model's bias and log-probabilities on what is held out", before)
    bias, nll = (float(v) for v in before)
    info = LanguageFmdInfo(
        False,
        bias,
        bias,
        float(np.exp(nll)),
        float(np.exp(nll)),
        0.0,
        (),
        head.vector().size,
        time.perf_counter() - began,
    )
    if len(pairs) == 0:
        return params, info

    edit, gradient = paired(pairs), sentence_gradient(config.direction)
    problem = training_problem(key, model, tokenizer, params, head, features, texts, config.curvature_texts)[0]
    budget = float(np.log1p(config.perplexity))

    def choose(number: int, judged: LanguageJudged) -> int:
        return least_bias(judged.bias, judged.nll, nll + budget * min(1.0, 2 * number / config.rounds))

    after, tried = edit_in_rounds(
        head,
        view,
        soft_sentence_pair_bias,
        bias,
        rounds=config.rounds,
        grid=candidates(config.steps_per_octave, low=-9, high=1),
        right_hand_side=lambda head, inverse: gradient(head, edit),
        choose=choose,
        problem=problem,
        solver=config.solver or ConjugateGradient(max_steps=30, tolerance=1e-3),
        damping=config.damping * _rows_that_count(problem),
    )
    taken = [one for one in tried if one.u != 0.0]
    fallen = 0.0
    if taken:
        differences = (np.asarray(_differences(one, view.pairs)) for one in (head, after))
        fallen = fall_of_pairs(*differences, np.asarray(view.pairs.unit))
    info = info._replace(fall=fallen, rounds=tuple(_round(one) for one in tried), seconds=time.perf_counter() - began)
    if not taken or fallen < config.significance:
        return params, info
    last = taken[-1].judged
    info = info._replace(accepted=True, bias_after=last.bias, perplexity_after=float(np.exp(last.nll)))
    return replace(params, after), info


def influence_on_bias(
    key: Key,
    model: LanguageModel,
    tokenizer: Tokenizer,
    params: Params,
    texts: Sequence[str],
    pairs: Sequence[SentencePair],
    config: LanguageFmdConfig = LanguageFmdConfig(),
) -> SentenceInfluence:
    """Which training sentences taught the model the bias of the pairs, by influence through the block of `config`.

    Args:
      key: draws the texts for the curvature.
      model: the language model.
      tokenizer: its tokenizer.
      params: the model's parameters.
      texts: the training sentences that are scored, in their order.
      pairs: whose bias it is about.
      config: block, damping, solver and how many texts give the curvature.

    Returns:
      One change for each text. First-order predictions for one sentence; see `influence.scores`.
    """
    head, features, _ = token_block(model, params, config.block)
    rows = pair_rows(features, params, pair_positions(model, tokenizer, pairs))
    curved = training_problem(key, model, tokenizer, params, head, features, texts, config.curvature_texts)[0]
    solver = config.solver or ConjugateGradient(max_steps=100, tolerance=1e-3)
    inverse = factor(curved, solver, damping=config.damping * _rows_that_count(curved))
    gradient = sentence_bias_gradient(head, rows)
    problem, positions = training_problem(key, model, tokenizer, params, head, features, texts, None)
    change = sentence_changes(problem, inverse, gradient, positions.text)
    residual = inverse.solve(np.asarray(gradient)[:, None]).residual
    return SentenceInfluence(change, float(_bias(head, rows)), residual)


def training_problem(
    key: Key,
    model: LanguageModel,
    tokenizer: Tokenizer,
    params: Params,
    head: Any,
    features: Callable[[Params, Positions], Any],
    texts: Sequence[str],
    limit: int | None,
) -> tuple[HeadProblem, Positions]:
    """The sum of the losses of all positions of the texts, estimated from at most `limit` random texts; None: of all,
    in their order."""
    chosen = np.arange(len(texts))
    if limit is not None and limit < len(texts):
        chosen = np.sort(np.asarray(jax.random.permutation(key, len(texts))[:limit]))
    positions = text_positions(model, tokenizer, [texts[i] for i in chosen])
    if limit is None:
        return head_problem(features(params, positions), positions.token, head), positions
    # Texts differ in length: rows of weight 0 fill the last `FILL`, so that other texts seldom compile anew.
    m = len(positions.token)
    filled = np.minimum(np.arange(-(-m // FILL) * FILL), m - 1)
    weight = np.where(np.arange(len(filled)) < m, len(texts) / len(chosen), 0.0).astype(np.float32)
    positions = positions._replace(**{name: getattr(positions, name)[filled] for name in positions._fields[1:]})
    if not model.causal:  # a row of tokens for each position
        positions = positions._replace(tokens=positions.tokens[filled], row=np.arange(len(filled), dtype=np.int32))
    return head_problem(features(params, positions), positions.token, head, weight=weight), positions


def token_rows(features: Callable[[Params, Positions], Any], params: Params, positions: Positions) -> TokenRows:
    """Positions with the features that the block takes."""
    return TokenRows(features(params, positions), jnp.asarray(positions.token))


def pair_rows(features: Callable[[Params, Positions], Any], params: Params, pairs: PairPositions) -> PairRows:
    """Pairs with the features that the block takes."""
    return PairRows(
        token_rows(features, params, pairs.positions),
        jnp.asarray(pairs.weight),
        jnp.asarray(pairs.pair),
        jnp.asarray(pairs.unit),
    )


def least_bias(bias: Float[Array, " m"], nll: Float[Array, " m"], ceiling: float) -> int:
    """The candidate of least bias among those whose log-loss is at most `ceiling`; the first, the present head, always
    may stay.

    >>> least_bias(np.array([0.6, 0.2, 0.1]), np.array([1.00, 1.01, 1.5]), 1.02)
    1
    """
    allowed = (np.asarray(nll) <= ceiling) & np.isfinite(np.asarray(bias))
    allowed[0] = True
    return int(np.argmin(np.where(allowed, bias, np.inf)))


def fall_of_pairs(before: Float[np.ndarray, " n"], after: Float[np.ndarray, " n"], unit: Array) -> float:
    """By how many of its standard errors the mean absolute difference falls; units (topics) are what is independent.

    >>> fall_of_pairs(np.array([1.0, -1.0, 1.0]), np.array([0.5, 0.5, 0.4]), np.array([0, 0, 1]))
    11.0
    """
    fallen = np.abs(before) - np.abs(after)
    _, unit = np.unique(unit, return_inverse=True)
    means = np.bincount(unit, fallen) / np.bincount(unit)
    error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.inf
    return float(np.round(means.mean() / max(error, 1e-12), 6))


@jax.jit
def _differences(head: Any, pairs: PairRows) -> Float[jax.Array, " n"]:
    return sentence_differences(head, pairs)


@jax.jit
def _bias(head: Any, pairs: PairRows) -> Float[jax.Array, ""]:
    return soft_sentence_pair_bias(head, pairs)


def _variance(heads: tuple[Any, Any], features: Any) -> Float[jax.Array, " b"]:
    """Of the change of the logits along the direction, under the probabilities of each row."""
    head, direction = heads
    logits, change = jax.jvp(lambda t: moved(head, direction, t).logits(features), (0.0,), (1.0,))
    p = jax.nn.softmax(logits)
    centred = change - jnp.einsum("bk,bk->b", p, change)[:, None]
    return jnp.einsum("bk,bk->b", p, centred**2)


def _rows_that_count(problem: HeadProblem) -> float:
    return float(len(problem.label) if problem.weight is None else np.sum(problem.weight))


def _round(one: EditRound) -> LanguageFmdRound:
    return LanguageFmdRound(
        u=one.u,
        t=one.t,
        predicted_change=one.predicted_change,
        achieved_change=one.achieved_change,
        bias=one.judged.bias,
        perplexity=float(np.exp(one.judged.nll)),
        residual=one.residual,
        iterations=one.iterations,
        seconds=one.seconds,
    )
