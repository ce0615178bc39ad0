"""From a model and a data set to answers: how biased, in which groups, on which pixels, because of which samples.

    said = auditing.measure(key, apply_fn, params, dataset)
    said.groups.worst_group_accuracy, said.counterfactual_bias

`class_maps` says where a model looks, `patch_places` where the data show the attribute, `draw_shares` which samples a
method that draws by rarity draws. All of them in one call: `jaxdebias.audit`.
"""

from jaxdebias.auditing._measurement import (
    Harmful,
    Influential,
    Measurement,
    changes,
    check_repairable,
    collapsed,
    findings,
    influential,
    measure,
    measure_predictions,
    most_harmful,
    train_counts,
    worst_rows,
)

__all__ = [
    "Harmful",
    "Influential",
    "Measurement",
    "changes",
    "check_repairable",
    "collapsed",
    "findings",
    "influential",
    "measure",
    "measure_predictions",
    "most_harmful",
    "train_counts",
    "worst_rows",
]
