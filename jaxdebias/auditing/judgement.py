"""The verdict of a command that measures one model, or a model before and after a repair.

    found = judge(key, classifier.apply, params, dataset, before)
    found.advice.state                 # what to do, by the table of `auditing.verdict`

An audit does more: it tries repairs and looks inside (`auditing.pipeline`). The three answers and the advice are made
by the same functions.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxdebias.auditing._measurement import Measurement
from jaxdebias.auditing.advice import GAIN, judged_changes, without_harm
from jaxdebias.auditing.assessment import Questions, assess, training_counts
from jaxdebias.auditing.candidates import list_candidates
from jaxdebias.auditing.interventions import intervene
from jaxdebias.auditing.verdict import Repair, Verdict, decide
from jaxdebias.batching import predict_rows
from jaxdebias.core import Array, Dataset, Key, Params

DEFAULT = Questions()
"""The questions with their defaults."""


def judge(
    key: Key,
    apply_fn: Callable[[Params, Array], jax.Array],
    params: Params,
    dataset: Dataset,
    measured: Measurement,
    *,
    attribute: str | None = None,
    repairs: Sequence[Repair] = (),
    questions: Questions = DEFAULT,
) -> Verdict:
    """Answers the three questions about a model on the test split and draws the advice from them.

    Args:
      key: randomness of tests and controls.
      apply_fn: `(params, x) -> logits [n k]` in evaluation mode.
      params: its parameters.
      dataset: the data set; its own attribute is the one that is judged.
      measured: what the model does on the test split.
      attribute: what the attribute is called, unless the data set says.
      repairs: what was tried, as `repair_effect` gives it.
      questions: tolerance, smallest groups, and what is known about the test set.
    """
    key_changes, key_assess = jax.random.split(key)
    if attribute is not None:
        dataset = dataclasses.replace(dataset, variant={"attribute": attribute, **dataset.variant})
    named = list_candidates(dataset)
    logits = np.asarray(measured.logits)

    def predict(x: Array) -> np.ndarray:
        return np.asarray(predict_rows(apply_fn, params, x)).argmax(-1)

    pairs, sides = dataset.pairs.get("test"), None
    if pairs is not None and dataset.pairing == "counterfactual":
        sides = predict(pairs.x), predict(pairs.twin)
    counts = training_counts(dataset, named, questions)
    found = assess(
        key_assess,
        logits,
        dataset,
        named,
        questions,
        probabilities=np.asarray(jax.nn.softmax(logits, axis=-1), np.float64),
        interventions=intervene(key_changes, predict, dataset, named, counts, logits.argmax(-1), pair_classes=sides),
    )
    return decide(
        found.disparity,
        found.reliance,
        found.association,
        repairs,
        rows=len(dataset.splits["test"].label),
        tolerance=questions.tolerance,
        min_group=questions.min_group,
    )


def repair_effect(
    key: Key, name: str, before: Mapping[str, Measurement], after: Mapping[str, Measurement], dataset: Dataset
) -> list[Repair]:
    """A repair as the advice takes it: its change of the balanced accuracy; none where it cannot be judged or harms.

    The acceptance split is held out, but has chosen how far the repair goes; the test split has the last word.

    Args:
      key: randomness of the tests.
      name: name of the repair.
      before: split (`accept`, `test`) -> measurement of the trained model; `test` may be missing.
      after: the same of the repaired model.
      dataset: the data set.
    """
    found = {
        split: judged_changes(jax.random.fold_in(key, i), before[split], after[split], dataset, split=split)
        for i, split in enumerate(("accept", "test"))
        if split in before
    }
    if GAIN not in found["accept"] or not all(map(without_harm, found.values())):
        return []
    test = found.get("test", {}).get(GAIN)
    return [Repair(name, found["accept"][GAIN], test)]
