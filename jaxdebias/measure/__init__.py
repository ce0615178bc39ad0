"""Is the model biased, and how strongly: every number with its uncertainty."""

from jaxdebias.measure.counterfactual import (
    counterfactual_bias,
    counterfactual_bias_of_logits,
    flip_rate,
    pair_bias,
    pair_gap,
    true_class_probability,
)
from jaxdebias.measure.fairness import (
    FairnessReport,
    fairness_report,
    soft_demographic_parity,
    soft_equal_opportunity,
    soft_equalised_odds,
)
from jaxdebias.measure.groups import Accuracies, GroupReport, accuracy_differences, group_confusion, group_report
from jaxdebias.measure.intervals import (
    Interval,
    bootstrap,
    over_seeds,
    paired_difference,
    paired_over_seeds,
    rate_intervals,
    separable,
    wilson,
)

__all__ = [
    "Accuracies",
    "FairnessReport",
    "GroupReport",
    "Interval",
    "accuracy_differences",
    "bootstrap",
    "counterfactual_bias",
    "counterfactual_bias_of_logits",
    "fairness_report",
    "flip_rate",
    "group_confusion",
    "group_report",
    "over_seeds",
    "pair_bias",
    "pair_gap",
    "paired_difference",
    "paired_over_seeds",
    "rate_intervals",
    "separable",
    "soft_demographic_parity",
    "soft_equal_opportunity",
    "soft_equalised_odds",
    "true_class_probability",
    "wilson",
]
