"""Writes "What can be concluded" from simulated examples: `python docs/conclusions.py`.

With `--check` it changes nothing and exits with 1 where the page is not current.

Each example is a function that a reader can rerun: it makes a table whose truth is known, and audits it.
"""

import argparse
import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxdebias
from jaxdebias.core import Batch, Dataset
from jaxdebias.report import verdict_words

PAGE = Path(__file__).parent / "what_can_be_concluded.md"
HEAD = """# What can be concluded

An audit answers three questions, each on its own:

- **Disparity.** Does the model serve the values of an attribute differently, in accuracy or in error rates given
  the label? States: `exceeds`, `within` or `cannot_tell`, against a tolerance (5 points unless `--tolerance` says
  otherwise). Positive rates and calibration are reported and decide nothing: a perfect model of data whose base
  rates differ has unequal positive rates.
- **Reliance.** Do its decisions depend on the attribute? States: `shown` (the attribute alone was changed, and
  predictions moved toward the class associated with it, further than a control), `shown_given` (the mistakes show
  it, given how the test set came about or other columns), `consistent` (mistakes lean, and other explanations are
  open), `no_sign`, `cannot_tell`.
- **Association.** Are label and attribute associated in the training data? Unknown without training rows or counts.

A disparity is no reliance: a group may be harder. A lean of mistakes is no reliance either: any table of
predictions fits a model that reads a legitimate cause only. Every example below is simulated, so that the truth is
known. The page is written by `python docs/conclusions.py`; each block runs by itself after the first one.
"""


class Example(NamedTuple):
    """One table of which the truth is known."""

    title: str
    truth: str
    """How it was made."""
    may: str
    """What the answer may say, and what it may not."""
    make: Callable[[], Any]


def audit(label, predicted, columns, train=None, **known):
    """Audits a table: classes or probabilities `[n k]`, attributes by name, training values by name if known."""

    def batch(label):
        return Batch(
            np.zeros((len(label), 1), np.float32), np.asarray(label, np.int32), np.full(len(label), -1, np.int32)
        )

    splits = {"test": batch(label)} | ({} if train is None else {"train": batch(train["label"])})
    dataset = Dataset(
        name="simulated",
        variant={},
        splits=splits,
        pairs={},
        label_names=("0", "1"),
        attribute_names=("unknown",),
        aligned=np.zeros((2, 1), bool),
        pairing="none",
    )
    given = {
        name: {"test": value} | ({"train": train[name]} if train is not None and name in train else {})
        for name, value in columns.items()
    }
    return jaxdebias.audit(None, None, dataset, predicted=predicted, candidates=given, **known)


def both(p):
    """Probabilities of both classes from that of the second."""
    return np.stack([1 - p, p], 1)


def biased_training(rng, n=4000, share=0.9):
    """Training rows in which value and label agree with this share."""
    label = rng.integers(0, 2, n)
    return {"label": label, "place": np.where(rng.random(n) < share, label, 1 - label)}


def clean():
    rng = np.random.default_rng(0)
    label, place = rng.integers(0, 2, 6000), rng.integers(0, 2, 6000)
    predicted = np.where(rng.random(6000) < 0.05, 1 - label, label)
    return audit(label, predicted, {"place": place}, biased_training(rng))


def few_rows():
    rng = np.random.default_rng(0)
    label, place = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    predicted = np.where(rng.random(300) < 0.05, 1 - label, label)
    return audit(label, predicted, {"place": place}, biased_training(rng))


def harder_group():
    rng = np.random.default_rng(0)
    label, age = rng.integers(0, 2, 4000), rng.choice(["child", "adult"], 4000, p=[0.2, 0.8])
    wrong = rng.random(4000) < np.where(age == "child", 0.35, 0.04)  # in both directions
    return audit(label, np.where(wrong, 1 - label, label), {"age": age})


def differing_base_rates(drawn):
    """The model reads x alone, as well as can be; x is distributed differently in the two groups."""
    rng = np.random.default_rng(0)

    def rows(n):
        group = rng.integers(0, 2, n)
        x = rng.normal(0.8 * (2 * group - 1), 1)
        p = 1 / (1 + np.exp(-2 * x))
        return group, p, (rng.random(n) < p).astype(int)

    (group, p, label), (train_group, _, train_label) = rows(4000), rows(4000)
    return audit(label, both(p), {"group": group}, {"label": train_label, "group": train_group}, drawn=drawn)


def rivals_open():
    return differing_base_rates("unknown")


def rivals_open_as_they_come():
    return differing_base_rates("as_they_come")


def reliance(share_that_relies, drawn, agreement=0.5):
    """Some decisions are made by the place alone, with the confidence of all others."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 4000)
    place = np.where(rng.random(4000) < agreement, label, 1 - label)
    seen = np.where(rng.random(4000) < 0.95, label, 1 - label)
    answer = np.where(rng.random(4000) < share_that_relies, place, seen)
    p = np.where(answer == 1, 1, -1) * rng.uniform(1, 3, 4000)
    return audit(label, both(1 / (1 + np.exp(-p))), {"place": place}, biased_training(rng), drawn=drawn)


def values_assigned():
    return reliance(0.25, "assigned")


def a_plain_sample():
    return reliance(0.25, "as_they_come", agreement=0.6)


def a_more_associated_sample():
    return reliance(0.25, "as_they_come", agreement=0.75)


def picked_rows():
    return reliance(0.25, "picked")


def twins():
    """The second column is the place; a twin is the same row with another place."""
    rng = np.random.default_rng(0)

    def rows(n, share):
        label = rng.integers(0, 2, n).astype(np.int32)
        place = np.where(rng.random(n) < share, label, 1 - label).astype(np.int32)
        signal = np.where(rng.random(n) < 0.95, label, 1 - label)
        return Batch(np.stack([2 * signal - 1, 2 * place - 1], 1).astype(np.float32), label, place)

    test, other = rows(2000, 0.5), np.array([[1, -1]], np.float32)
    aligned = np.where((test.attribute == test.label)[:, None], test.x, test.x * other)
    pairs = Batch(aligned, test.label, test.label, twin=aligned * other)
    dataset = Dataset(
        name="simulated",
        variant={"attribute": "place"},
        splits={"train": rows(2000, 0.9), "test": test},
        pairs={"test": pairs},
        label_names=("0", "1"),
        attribute_names=("0", "1"),
        aligned=np.eye(2, dtype=bool),
    )
    weights = np.array([[-1, 1], [-1.5, 1.5]], np.float32)  # more weight on the place than on the signal
    return jaxdebias.audit(lambda weights, x: x @ weights, weights, dataset)


def no_training_rows():
    rng = np.random.default_rng(0)
    label, place = rng.integers(0, 2, 6000), rng.integers(0, 2, 6000)
    predicted = np.where(rng.random(6000) < 0.05, 1 - label, label)
    return audit(label, predicted, {"place": place})


def recidivism(n, rng):
    """People of whom some offend again: priors and age decide; police records differ between groups."""
    race, sex = rng.choice(["a", "b", "c"], n, p=[0.5, 0.35, 0.15]), rng.choice(["f", "m"], n, p=[0.2, 0.8])
    age = np.clip(rng.gamma(5, 7, n), 18, 80)
    mean = np.select([race == "a", race == "b"], [3.2, 1.9], 1.6) * np.where(sex == "m", 1.15, 0.7)
    priors = rng.poisson(mean * rng.gamma(1.0, 1.0, n))
    logit = -0.35 + 0.28 * np.minimum(priors, 10) - 0.045 * (age - 32)
    p = 1 / (1 + np.exp(-logit))
    score = np.clip(np.ceil(p * 10), 1, 10)  # ten steps
    calibrated = (score - 0.5) / 10
    label = (rng.random(n) < calibrated).astype(int)  # exactly calibrated, in every group
    bands = np.select([age < 25, age < 45], ["under 25", "25 to 44"], "45 and over")
    return {"label": label, "race": race, "sex": sex, "age": bands, "priors": priors, "p": calibrated}


def a_calibrated_score():
    rng = np.random.default_rng(0)
    test, train = recidivism(7000, rng), recidivism(7000, rng)
    names = ("race", "sex", "age")
    return audit(
        test["label"],
        both(test["p"]),
        {name: test[name] for name in names},
        {name: train[name] for name in ("label", *names)},
        drawn="as_they_come",
        slices=1,
    )


def beyond_priors():
    """The same people; the score of race a was raised by a tenth, which priors and age do not justify."""
    rng = np.random.default_rng(0)
    test, train = recidivism(7000, rng), recidivism(7000, rng)
    p = np.clip(test["p"] + 0.2 * (test["race"] == "a") - 0.1, 0.01, 0.99)
    years = np.select([test["age"] == "under 25", test["age"] == "25 to 44"], [0, 1], 2)
    return audit(
        test["label"],
        both(p),
        {"race": test["race"]},
        {"label": train["label"], "race": train["race"]},
        given={"priors": test["priors"].astype(float), "age": years.astype(float)},
        slices=1,
    )


EXAMPLES = (
    Example(
        "No problem found",
        "Mistakes fall on everybody equally; training is biased, the model does not use it.",
        "It may say that no gap above the tolerance was found and that a lean of a given size would have "
        "shown. It may not say that the model is fair, or that smaller gaps do not exist.",
        clean,
    ),
    Example(
        "Not enough data",
        "The same model, on 300 rows.",
        "It may say how many rows of which group would settle it. It may not say that there is no gap.",
        few_rows,
    ),
    Example(
        "A disparity, and no shortcut",
        "Pictures of children are harder: more mistakes, in both directions.",
        "It may say that children are served worse, by how much, and that the cause is not shown. It may not "
        "say that the model relies on age.",
        harder_group,
    ),
    Example(
        "A lean with open rivals",
        "The model is the best rule on x and never sees the group; x is distributed differently in the groups.",
        "It may say that mistakes lean with the group and which explanations are open. It may not say that "
        "the model relies on it: here it does not.",
        rivals_open,
    ),
    Example(
        "The same, as a plain sample",
        "As before, and the audit is told that the rows are a plain sample.",
        "The model leans no further than its calibration allows: still not shown, rightly.",
        rivals_open_as_they_come,
    ),
    Example(
        "Reliance, values assigned",
        "A quarter of the decisions are made by the place, which was assigned to the test rows independently "
        "of their content.",
        "It may say that the model relies on the place, unless the labels of one value are wrong in one direction.",
        values_assigned,
    ),
    Example(
        "Reliance, a plain sample",
        "A quarter of the decisions are made by the place; the test rows are a plain sample.",
        "It may say that the model favours the associated class more than the labels justify. A model that "
        "uses the place as far as it is informative, and no further, would not be seen.",
        a_plain_sample,
    ),
    Example(
        "The same reliance, missed",
        "As before, but label and place agree in 75 % of the test rows instead of 60 %.",
        "The model leans no further than so strong an association justifies: `consistent`, although it does rely "
        "on the place. No claim is no proof that there is nothing.",
        a_more_associated_sample,
    ),
    Example(
        "Reliance, rows picked",
        "The same reliance on rows that were balanced by label and place.",
        "Balancing does not exclude base rates: `consistent` is right, although here the model does rely on the place.",
        picked_rows,
    ),
    Example(
        "Reliance, shown by twins",
        "Decisions follow the place more than the signal; for each test row there is the same row with another place.",
        "It may say that the model relies on the place: nothing else was changed, and mistakes on unchanged rows lean "
        "as well, which twins that are only harder would not bring about. Wrong labels cannot explain it.",
        twins,
    ),
    Example(
        "Training unknown",
        "The clean model again, without training rows or counts.",
        "The test set has no association that gives a direction, so nothing can be said about reliance; "
        "disparity can. No aligned and conflicting rows are told apart.",
        no_training_rows,
    ),
    Example(
        "A score in ten steps",
        "7,000 people with race, sex, age, priors and a risk score in ten steps. The score is exactly "
        "calibrated in every group and reads priors and age only; base rates differ between groups.",
        "Error rates given the label differ, as they must where base rates differ and the score is "
        "calibrated: a disparity, with its size. It may not say that the score relies on race. Whether "
        "unequal error rates or unequal calibration is the wrong to avoid is for people to decide; both "
        "cannot be had.",
        a_calibrated_score,
    ),
    Example(
        "A score beyond its inputs",
        "The same people; scores of race a were raised by 0.1 and the others' lowered by as much. Priors and "
        "age are given as legitimate inputs.",
        "Within strata of priors and age, mistakes still lean with race: shown given these columns, and no "
        "more than that; a cause that is not among them stays possible.",
        beyond_priors,
    ),
)


def source(function: Callable[..., Any]) -> str:
    return textwrap.dedent(inspect.getsource(function)).rstrip()


def section(example: Example) -> str:
    """The example, its code and what the audit says."""
    verdict = example.make().verdict
    lines = [f"> **{verdict.headline}**"]
    lines += [f"> - {one.title} {one.text}" for one in verdict_words.sections(verdict)]
    return "\n\n".join(
        [
            f"## {example.title}",
            f"*Truth.* {example.truth}",
            f"```python\n{source(example.make)}\n```",
            f"{lines[0]}\n>\n" + "\n".join(lines[1:]),
            example.may,
        ]
    )


def page() -> str:
    shared = "\n\n\n".join(
        source(function) for function in (audit, both, biased_training, differing_base_rates, reliance, recidivism)
    )
    imports = "import numpy as np\n\nimport jaxdebias\nfrom jaxdebias.core import Batch, Dataset\n\n\n"
    blocks = [section(example) for example in EXAMPLES]
    return "\n\n".join([HEAD.rstrip(), f"```python\n{imports}{shared}\n```", *blocks]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the page is not current")
    check = parser.parse_args().check
    text = page()
    if check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
