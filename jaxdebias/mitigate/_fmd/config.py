"""Fast Model Debias: what can be set, and what is reported."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxdebias.contracts import check_choice, expect
from jaxdebias.explain.influence._functionals import GROUP_BIASES
from jaxdebias.explain.influence._inverse import Solver
from jaxdebias.explain.influence._objective import pair_bias, pair_gap

BIASES = {"pair": pair_bias, "gap": pair_gap, **GROUP_BIASES}


@dataclass(frozen=True, kw_only=True)
class FmdConfig:
    """Defaults are those that hold on real models; they are ours, not the paper's (which takes one step)."""

    rounds: int = 10
    """Re-linearisations at most; a round that finds no better head ends the edit."""
    damping: float = 1e-3
    """Added to the curvature of the MEAN of the training losses; that of the sum is n times this."""
    curvature_rows: int = 10_000
    """Random training rows for the curvature, drawn once; all of them where there are fewer."""
    pairs: int | None = None
    """Edit pairs, or training samples, to use at most; None: all. At least 500 for 10 classes do well."""
    direction: str = "ext"
    """`ext`, `learn` or `gradB`. `ext` is the paper's; `gradB` ends at a lower bias with slightly less accuracy."""
    bias: str = "pair"
    """`pair` for true counterfactuals, `gap` for matched pairs of different examples; with two classes and attributes
    also `demographic_parity`, `equal_opportunity` and `equalised_odds` (soft), over the edit and accept examples."""
    edit_with: str = "external"
    """What the step is made of. `external`: held-out pairs; needs no training sample but for the curvature. `replace`:
    training samples are replaced by their counterfactual twins (`train.twin`). `remove`: they are removed."""
    ranking: str = "none"
    """For `replace` and `remove`, which samples. `none`: random ones, aligned if `aligned` is given. `action`: by the
    score of what is done. `removal`: by the paper's score, whatever is done. Ranked samples did worse than random ones
    wherever it was measured (3 seeds, benchmarks/results/fmd_samples.json): scores are not additive and pick one kind
    of sample."""
    twin_weight: float = 0.0
    """How often each pair's twin counts in the curvature, beside the training rows; 0 is the paper's."""
    accuracy_tolerance: float = 0.01
    """Accuracy on `accept` that may be given up against the best candidate of a round."""
    steps_per_octave: int = 1
    """Candidates u per factor of 2. A saturated model wants the coarse grid: a finer one lets the first rounds buy more
    bias with aligned accuracy than later ones can use. On a model that is not saturated the coarse grid oversteps the
    least bias, and `ext` cannot step back: there take 4."""
    aligned_floor: float | None = 0.10
    """Accuracy on the aligned renderings that the whole edit may cost, against the unedited model; None: no floor. The
    budget is released in equal parts over the first half of the rounds: greedy first rounds that could spend it all
    sometimes did, and no later step was then allowed (chosen on the accept sets of seeds that no table reports)."""
    significance: float = 3.0
    """`bias_drop_z` that the whole edit must reach to be kept; 0: any drop will do. A search over many candidates finds
    small drops in noise, also with pairs whose labels are wrong; 3 was set after looking at the accept splits of
    coloured digits. Fewer than ten independent units cannot reach 3."""
    step: float | None = None
    """Take this step u in every round instead of searching, for a curve over steps; the edit is always kept."""
    solver: Solver | None = None
    """None: a dense factor for a last layer, 30 conjugate gradients on the Gauss-Newton matrix for any other block."""
    search: bool = True
    """False: one step of t = 1, kept whatever it does. For comparison with the paper; expect a destroyed model."""

    def __post_init__(self):
        check_choice("direction", self.direction, ("ext", "learn", "gradB"))
        check_choice("bias", self.bias, BIASES)
        check_choice("edit_with", self.edit_with, ("external", "replace", "remove"))
        check_choice("ranking", self.ranking, ("none", "action", "removal"))
        ranked = self.ranking != "none"
        expect(not ranked or self.edit_with != "external", "ranking", "none for external pairs", self.ranking)
        expect(
            self.edit_with == "external" or self.direction == "ext",
            "direction",
            "ext for training samples",
            self.direction,
        )
        expect(self.twin_weight >= 0, "twin_weight", "at least 0", self.twin_weight)
        expect(self.step is None or self.step > 0, "step", "more than 0, or None to search", self.step)
        expect(self.rounds >= 1, "rounds", "at least 1", self.rounds)
        expect(self.damping > 0, "damping", "more than 0: the softmax Hessian is singular", self.damping)
        expect(self.curvature_rows >= 1, "curvature_rows", "at least 1", self.curvature_rows)
        expect(self.pairs is None or self.pairs >= 1, "pairs", "at least 1, or None for all", self.pairs)
        expect(self.steps_per_octave >= 1, "steps_per_octave", "at least 1", self.steps_per_octave)
        expect(self.accuracy_tolerance >= 0, "accuracy_tolerance", "at least 0", self.accuracy_tolerance)
        expect(self.significance >= 0, "significance", "at least 0", self.significance)


class FmdRound(NamedTuple):
    """One round. Bias and accuracies are those of the held-out sets at the head after the round."""

    u: float
    """The chosen step, as rms change of the centred logits of the accept pairs; 0: none was better."""
    t: float
    """The same, as a multiple of the step."""
    predicted_change: float
    """Of the bias of the accept pairs, to first order in the chosen step."""
    achieved_change: float
    bias: float
    accuracy: float
    aligned_accuracy: float
    residual: float
    """Of the solve that gave the step."""
    iterations: int
    """Of the solve; 0 for a direct one."""
    smallest_pivot: float | None
    """Of a dense factor."""
    gradient_norm: float
    """|grad| of the sum of training losses at the head before the round (estimated from the curvature rows)."""
    seconds: float


class FmdInfo(NamedTuple):
    """What the edit did, on the held-out accept sets. Report on a test set, not on these."""

    accepted: bool
    """False: the parameters that came back are the very ones that went in."""
    bias_before: float
    bias_after: float
    accuracy_before: float
    accuracy_after: float
    aligned_before: float
    """Accuracy on the aligned renderings of the accept pairs."""
    aligned_after: float
    bias_drop_z: float
    """Drop of the bias of the accept pairs, by all rounds together, as a z value over independent units; what
    `significance` is asked of."""
    rounds: tuple[FmdRound, ...]
    """All that were tried, also where the edit was not accepted."""
    seconds: float
