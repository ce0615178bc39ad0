"""Simulated predictions in which it is known whether the model relies on an attribute: what `audit_power.py` audits.

Every set is a table: predictions and probabilities of a model whose rule is written here, labels, attributes, training
counts, and how the rows came about. A family is one way in which mistakes come to lean. There are three kinds: in
*clean* families the model uses no attribute; in *reliance* families it uses the one called `used`; the *apart* ones
cannot be told from reliance, or from its absence, by anyone who has the table alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
TRAINING = 5000
"""Training rows behind the counts."""


class Table(NamedTuple):
    """One simulated set."""

    arguments: dict[str, Any]
    """Of `measure.assess_reliance`."""
    twins: Mapping[str, tuple[np.ndarray, ...]] = {}
    """Attribute -> (predicted before, after the change, after the control change, class associated with the change)."""
    changed: Mapping[str, tuple[np.ndarray, ...]] = {}
    """Attribute -> (predicted before, after, label, value, value after the change, training counts)."""


class Family(NamedTuple):
    """One way in which mistakes lean."""

    kind: Literal["clean", "reliance", "apart"]
    designs: tuple[dict[str, Any], ...]
    """Options of `make`; each is simulated equally often."""
    make: Callable[..., Table]
    """(generator, **design) -> Table."""


def logistic(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def softmax(z: np.ndarray) -> np.ndarray:
    shifted = np.exp(z - z.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def two_columns(q: np.ndarray) -> np.ndarray:
    return np.stack([1.0 - q, q], axis=1)


def counted(label: np.ndarray, value: np.ndarray, classes: int, values: int) -> np.ndarray:
    """`[k a]` rows per class and value."""
    return np.bincount(label * values + value, minlength=classes * values).reshape(classes, values)


def aligned(rng: np.random.Generator, label: np.ndarray, share: float, values: int = 2) -> np.ndarray:
    """Values that equal the label in a share of the rows, otherwise another one."""
    other = (label + rng.integers(1, values, len(label))) % values
    return np.where(rng.random(len(label)) < share, label, other)


def flipped(rng: np.random.Generator, label: np.ndarray, chance: np.ndarray | float) -> np.ndarray:
    """Labels of two classes, wrong with a chance."""
    return np.where(rng.random(len(label)) < chance, 1 - label, label)


def table(q: np.ndarray, label: np.ndarray, values: Arrays, counts: Arrays, drawn: str, scores: bool) -> Table:
    """A table of the predictions of the likeliest class."""
    return Table(
        {
            "predicted": q.argmax(1),
            "label": label,
            "values": values,
            "train_counts": counts,
            "probabilities": q if scores else None,
            "drawn": drawn,
        }
    )


def picked(rng: np.random.Generator, label: np.ndarray, value: np.ndarray, n: int) -> np.ndarray:
    """n rows, equally many of each label and value."""
    cell = label * (value.max() + 1) + value
    cells = np.unique(cell)
    rows = [np.flatnonzero(cell == one) for one in cells]
    each = min(n // len(cells), *(len(own) for own in rows))
    return np.concatenate([rng.choice(own, each, replace=False) for own in rows])


def base_rates(rng: np.random.Generator, *, n: int, shift: float, classes: int, drawn: str, scores: bool) -> Table:
    """Labels depend on a legitimate x alone, its mean differs between the values; the model is the Bayes rule on x."""
    few = drawn in ("as_they_come", "unknown")

    def population(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value = rng.integers(0, classes, size)
        x = rng.normal(size=(size, classes)) + shift * np.eye(classes)[value]
        q = softmax(2.0 * x)
        label = (q.cumsum(1) < rng.random((size, 1))).sum(1)
        return q, np.minimum(label, classes - 1), value

    _, label, value = population(TRAINING)
    counts = {"group": counted(label, value, classes, classes)}
    q, label, value = population(n if few else 6 * n)
    if not few:
        rows = picked(rng, label, value, n)
        q, label, value = q[rows], label[rows], value[rows]
    return table(q, label, {"group": value}, counts, drawn, scores)


def columns_given(
    rng: np.random.Generator, *, n: int, curved: bool, beyond: float, strength: float, scores: bool
) -> Table:
    """Rows with their legitimate columns x and z, whose means differ between the values.

    The label depends on x; the model reads x, z as far as `beyond`, and the value as far as `strength`.
    """
    value = rng.integers(0, 2, n)
    x, z = rng.normal(size=(2, n)) + 0.5 * value - 0.25
    signal = 2.0 * (x**2 - 1.0) if curved else 2.0 * x
    label = (rng.random(n) < logistic(signal)).astype(int)
    q = logistic(signal + beyond * z + strength * (2 * value - 1))
    seen = rng.integers(0, 2, TRAINING)
    counts = {"used": counted(seen, aligned(rng, seen, 0.8), 2, 2)}
    made = table(two_columns(q), label, {"used": value}, counts, "unknown", scores)
    made.arguments["given"] = {"x": x, "z": z}
    return made


def noisy_group(rng: np.random.Generator, *, n: int, noise: float, share: float, drawn: str, scores: bool) -> Table:
    """Labels of one group are wrong in both directions; the model reads x only."""

    def population(size: int, associated: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        truth = (rng.random(size) < 0.4).astype(int)
        value = aligned(rng, truth, share) if associated else (rng.random(size) < 0.3).astype(int)
        q = logistic(3.0 * (rng.normal(size=size) + 1.5 * (2 * truth - 1)) + np.log(0.4 / 0.6))
        return q, flipped(rng, truth, np.where(value == 1, noise, 0.01)), value

    _, label, value = population(TRAINING, True)
    counts = {"group": counted(label, value, 2, 2)}
    q, label, value = population(n, drawn != "assigned")
    return table(two_columns(q), label, {"group": value}, counts, drawn, scores)


def hard_group(rng: np.random.Generator, *, n: int, rare: float, blur: float, drawn: str, scores: bool) -> Table:
    """One group is blurred, and the model answers with the frequent class where it does not know."""

    def population(size: int, associated: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = (rng.random(size) >= rare).astype(int)  # class 1 is frequent
        value = aligned(rng, label, 0.8) if associated else rng.integers(0, 2, size)
        x = rng.normal(size=size) + 1.5 * (2 * label - 1)
        return logistic(3.0 * x * np.where(value == 1, blur, 1.0) + np.log((1.0 - rare) / rare)), label, value

    _, label, value = population(TRAINING, True)
    counts = {"group": counted(label, value, 2, 2)}
    q, label, value = population(n, drawn != "assigned")
    return table(two_columns(q), label, {"group": value}, counts, drawn, scores)


def few_mistakes(
    rng: np.random.Generator, *, n: int, mistakes: int, candidates: int, drawn: str, scores: bool
) -> Table:
    """A nearly perfect model, and many attributes associated with the label in training and in the test set."""
    label, seen = rng.integers(0, 2, n), rng.integers(0, 2, TRAINING)
    strength = rng.uniform(0.6, 0.95, candidates)
    values = {f"a{i}": aligned(rng, label, share) for i, share in enumerate(strength)}
    counts = {f"a{i}": counted(seen, aligned(rng, seen, share), 2, 2) for i, share in enumerate(strength)}
    wrong = np.zeros(n, bool)
    wrong[rng.choice(n, mistakes, replace=False)] = True
    sure = np.where(wrong, rng.uniform(0.5, 0.9, n), rng.beta(20.0, 0.5, n) / 2.0 + 0.5)
    predicted = np.where(wrong, 1 - label, label)
    q = two_columns(np.where(predicted == 1, sure, 1.0 - sure))
    made = table(q, label, values, counts, drawn, scores)
    made.arguments["predicted"] = predicted
    return made


def correlated(
    rng: np.random.Generator, *, n: int, strength: float, agreement: float, drawn: str, scores: bool
) -> Table:
    """Five proxies of one attribute, which the model uses (strength above 0) or not; proxies are never used."""
    label, seen = rng.integers(0, 2, n), rng.integers(0, 2, TRAINING)
    used, used_seen = rng.integers(0, 2, n), aligned(rng, seen, 0.9)
    values = {f"proxy{i}": aligned(rng, used, agreement) for i in range(5)} | {"used": used}
    counts = {f"proxy{i}": counted(seen, aligned(rng, used_seen, agreement), 2, 2) for i in range(5)}
    counts["used"] = counted(seen, used_seen, 2, 2)
    x = rng.normal(size=n) + 1.3 * (2 * label - 1)
    return table(two_columns(logistic(2.6 * x + strength * (2 * used - 1))), label, values, counts, drawn, scores)


def deployed(rng: np.random.Generator, *, n: int, drawn: str, scores: bool) -> Table:
    """A classifier trained on adults: children are recognised badly, and there is no shortcut."""

    def population(size: int, shares: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        age = rng.choice(4, size, p=shares)
        return age, (rng.random(size) < np.array([0.5, 0.52, 0.56, 0.45])[age]).astype(int)

    age, label = population(TRAINING, (0.01, 0.06, 0.73, 0.20))
    counts = {"age": counted(label, age, 2, 4)}
    age, label = population(n, (0.15, 0.15, 0.5, 0.2))
    signal = np.array([0.25, 0.9, 1.9, 1.7])[age]
    x = rng.normal(size=n) + signal * (2 * label - 1)
    return table(two_columns(logistic(3.6 * x)), label, {"age": age}, counts, drawn, scores)


def margin_and_weight(accuracy: float, gap: float) -> tuple[float, float]:
    """(d, b): x is d above or below 0, and the model adds b to its log odds with the value, for accuracy and gap."""
    from scipy import optimize, special

    def off(of: np.ndarray) -> list[float]:
        with_it, against_it = special.ndtr(of[0] + of[1] / (2 * of[0])), special.ndtr(of[0] - of[1] / (2 * of[0]))
        return [(with_it + against_it) / 2 - accuracy, with_it - against_it - gap]

    d, b = optimize.fsolve(off, [1.3, 0.3])
    return float(d), float(b)


def balanced_reliance(rng: np.random.Generator, *, n: int, gap: float, drawn: str, scores: bool) -> Table:
    """Two classes, labels and values balanced, 90 % accurate; the model adds log odds of the value to those of x."""
    d, b = margin_and_weight(0.9, gap)
    seen = rng.integers(0, 2, TRAINING)
    label, value = rng.integers(0, 2, n), rng.integers(0, 2, n)
    x = rng.normal(size=n) + d * (2 * label - 1)
    q = logistic(2 * d * x + b * (2 * value - 1))
    counts = {"used": counted(seen, aligned(rng, seen, 0.9), 2, 2)}
    return table(two_columns(q), label, {"used": value}, counts, drawn, scores)


def three_classes(rng: np.random.Generator, *, n: int, strength: float, drawn: str, scores: bool) -> Table:
    """Three classes and values; the model adds log odds of the value's class."""
    seen = rng.integers(0, 3, TRAINING)
    label, value = rng.integers(0, 3, n), rng.integers(0, 3, n)
    x = rng.normal(size=(n, 3)) + 2.0 * np.eye(3)[label]
    counts = {"used": counted(seen, aligned(rng, seen, 0.9, 3), 3, 3)}
    return table(softmax(2.0 * x + strength * np.eye(3)[value]), label, {"used": value}, counts, drawn, scores)


def twins(rng: np.random.Generator, *, n: int, strength: float) -> Table:
    """Pictures shown with the other value of the attribute; the control change adds as much noise."""
    made = three_classes(rng, n=n, strength=strength, drawn="unknown", scores=False)
    label, value = made.arguments["label"], made.arguments["values"]["used"]
    other = (value + rng.integers(1, 3, n)) % 3
    x = rng.normal(size=(n, 3)) + 2.0 * np.eye(3)[label]
    noise = 0.2 * rng.normal(size=(2, n, 3))
    before = (2.0 * x + strength * np.eye(3)[value]).argmax(1)
    after = (2.0 * (x + noise[0]) + strength * np.eye(3)[other]).argmax(1)
    control = (2.0 * (x + noise[1]) + strength * np.eye(3)[value]).argmax(1)
    made.arguments["predicted"] = before
    return made._replace(twins={"used": (before, after, control, other)})


def changed_twins(
    rng: np.random.Generator, *, n: int, classes: int, both_ways: bool, harder: float, fallback: bool, strength: float
) -> Table:
    """Pictures shown with another value, without a control change; the changed ones are missed more often.

    In a share `harder` of them the model sees nothing of the class: it guesses, or falls back on class 0. With
    `strength` it says the value's class instead in that share of all pictures. One way: from the value of the label.
    """
    label, seen = rng.integers(0, classes, n), rng.integers(0, classes, TRAINING)
    counts = counted(seen, aligned(rng, seen, 0.9, classes), classes, classes)

    def answers(label: np.ndarray, value: np.ndarray, lost: float) -> np.ndarray:
        guess = np.zeros(n, int) if fallback else rng.integers(0, classes, n)
        said = np.where(rng.random(n) < lost, guess, flipped_to_any(rng, label, classes, 0.05))
        return np.where(rng.random(n) < strength, value, said)

    value = rng.integers(0, classes, n) if both_ways else label
    other = (value + rng.integers(1, classes, n)) % classes
    changed = (answers(label, value, 0.0), answers(label, other, harder), label, value, other, counts)
    test = rng.integers(0, classes, n)
    of_test = rng.integers(0, classes, n)
    name = "used" if strength else "group"
    made = {
        "predicted": answers(test, of_test, 0.0),
        "label": test,
        "values": {name: of_test},
        "train_counts": {name: counts},
        "probabilities": None,
        "drawn": "unknown",
    }
    return Table(made, changed={name: changed})


def flipped_to_any(rng: np.random.Generator, label: np.ndarray, classes: int, chance: float) -> np.ndarray:
    """Labels that are another class with a chance."""
    other = (label + rng.integers(1, classes, len(label))) % classes
    return np.where(rng.random(len(label)) < chance, other, label)


def one_way(rng: np.random.Generator, *, n: int, noise: float, told: bool, drawn: str, scores: bool) -> Table:
    """Labels of one value are wrong in one direction: class 1 is written down as class 0. The model reads x only."""
    seen = rng.integers(0, 2, TRAINING)
    truth, value = rng.integers(0, 2, n), rng.integers(0, 2, n)
    x = rng.normal(size=n) + 1.3 * (2 * truth - 1)
    label = np.where((value == 1) & (truth == 1) & (rng.random(n) < noise), 0, truth)
    counts = {"group": counted(seen, aligned(rng, seen, 0.9), 2, 2)}
    made = table(two_columns(logistic(2.6 * x)), label, {"group": value}, counts, drawn, scores)
    made.arguments["wrong_labels"] = told
    return made


def calibrated_use(rng: np.random.Generator, *, n: int, share: float, scores: bool) -> Table:
    """The model uses the value as far as the labels of the test set justify: a legitimate proxy would look so."""

    def population(size: int) -> tuple[np.ndarray, np.ndarray]:
        label = rng.integers(0, 2, size)
        return label, aligned(rng, label, share)

    counts = {"used": counted(*population(TRAINING), 2, 2)}
    label, value = population(n)
    x = rng.normal(size=n) + 1.2 * (2 * label - 1)
    q = logistic(2.4 * x + np.log(share / (1.0 - share)) * (2 * value - 1))
    return table(two_columns(q), label, {"used": value}, counts, "as_they_come", scores)


def every(**choices: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """All combinations of choices."""
    designs: list[dict[str, Any]] = [{}]
    for name, values in choices.items():
        designs = [{**design, name: value} for design in designs for value in values]
    return tuple(designs)


BOTH, SIZES, SAMPLED = (True, False), (500, 2000), ("assigned", "as_they_come")
FAMILIES: dict[str, Family] = {
    "base rates": Family(
        "clean",
        every(n=SIZES, shift=(0.25, 0.5, 1.0), classes=(2, 3), drawn=("as_they_come",), scores=BOTH)
        + every(n=SIZES, shift=(0.5,), classes=(2, 3), drawn=("picked", "unknown"), scores=(True,)),
        base_rates,
    ),
    "noisy group": Family(
        "clean", every(n=SIZES, noise=(0.1, 0.3), share=(0.7, 0.9), drawn=SAMPLED, scores=BOTH), noisy_group
    ),
    "hard group, rare class": Family(
        "clean", every(n=SIZES, rare=(0.15, 0.3), blur=(0.1, 0.5), drawn=SAMPLED, scores=BOTH), hard_group
    ),
    "few mistakes": Family(
        "clean",
        every(n=(400, 1000), mistakes=(2, 5, 10), candidates=(5, 20), drawn=("as_they_come", "assigned"), scores=BOTH),
        few_mistakes,
    ),
    "correlated, none used": Family(
        "clean", every(n=SIZES, strength=(0.0,), agreement=(0.7, 0.85), drawn=SAMPLED, scores=BOTH), correlated
    ),
    "deployed, no shortcut": Family("clean", every(n=SIZES, drawn=("as_they_come", "unknown"), scores=BOTH), deployed),
    "columns given, none used": Family(
        "clean", every(n=SIZES, curved=BOTH, beyond=(0.0, 1.0), strength=(0.0,), scores=BOTH), columns_given
    ),
    "twins, none used": Family("clean", every(n=(100, 500, 2000), strength=(0.0,)), twins),
    "harder twins, none used": Family(
        "clean",
        every(n=(200, 800), classes=(2, 6), both_ways=BOTH, harder=(0.2, 0.5), fallback=BOTH, strength=(0.0,)),
        changed_twins,
    ),
    "balanced labels": Family(
        "reliance", every(gap=(0.07, 0.14), n=SIZES, drawn=SAMPLED, scores=BOTH), balanced_reliance
    ),
    "three classes": Family("reliance", every(n=SIZES, strength=(1.0, 2.0), drawn=SAMPLED, scores=BOTH), three_classes),
    "correlated, one used": Family(
        "reliance", every(n=SIZES, strength=(1.0,), agreement=(0.7, 0.85), drawn=SAMPLED, scores=BOTH), correlated
    ),
    "beyond columns given": Family(
        "reliance", every(n=SIZES, curved=BOTH, beyond=(0.0, 1.0), strength=(0.5,), scores=BOTH), columns_given
    ),
    "twins": Family("reliance", every(n=(100, 500, 2000), strength=(0.5, 1.0)), twins),
    "harder twins": Family(
        "reliance",
        every(n=(200, 800), classes=(2, 6), both_ways=BOTH, harder=(0.0, 0.2), fallback=(False,), strength=(0.1, 0.2)),
        changed_twins,
    ),
    "one-way wrong labels": Family(
        "apart", every(n=SIZES, noise=(0.1, 0.3), told=BOTH, drawn=("as_they_come",), scores=BOTH), one_way
    ),
    "calibrated use": Family("apart", every(n=SIZES, share=(0.7, 0.9), scores=BOTH), calibrated_use),
}
