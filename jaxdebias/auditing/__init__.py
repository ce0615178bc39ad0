"""From a model and a data set to answers: how biased, in which groups, on which pixels, because of which samples.

    measurement = auditing.measure(key, apply_fn, params, dataset)
    measurement.groups.worst_group_accuracy, measurement.counterfactual_bias

`class_maps` shows where a model looks, `patch_places` where the data show the attribute, `draw_shares` which samples a
method that draws by rarity draws. `pipeline` runs all stages of an audit; `jaxdebias.audit` is the call.
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
