"""Phrases of a verdict: one comparison, one group, one claim, one number, as every output writes them."""

from collections.abc import Sequence

from jaxdebias.report import formats
from jaxdebias.results.records import Disparity, Estimate, Reliance, RepairEffect, Verdict

CAVEAT = "unless the labels of one value are wrong in one direction"
DECIDERS = (
    "pairs that differ in it alone (twins), hidden regions, legitimate inputs (--given), or knowing how the test set "
    "was drawn (--drawn)"
)
STATES = {
    "exceeds": "exceeds the tolerance",
    "within": "within the tolerance",
    "cannot_tell": "cannot tell",
    "shown": "shown",
    "shown_given": "shown, given the evidence",
    "consistent": "consistent with reliance, not shown",
    "no_sign": "no sign",
}
"""How a state is written in tables."""
ADVICE = {
    "no_problem_found": "No problem found",
    "not_enough_data": "Not enough data",
    "disparity_repaired": "Disparity repaired",
    "disparity_cause_not_shown": "Disparity, cause not shown",
    "reliance_repaired": "Reliance repaired",
    "reliance_retrain": "Reliance, retrain",
}
"""How advice is titled."""
TOWARD = "predictions move toward the associated class"
CHANGED = {
    "twins": f"in pairs of samples that differ in {{a}} alone, {TOWARD}",
    "flipped_column": f"where the column {{a}} is changed and nothing else, {TOWARD}",
    "hidden_region": "where the region that shows {a} is hidden, predictions move away from the associated class",
    "pixel_edit": f"where the pixels that show {{a}} are edited, {TOWARD}",
}
"""What was seen, by intervention."""
RIVALS = {
    "base_rates": "labels that are differently frequent",
    "label_noise": "wrong labels of one value",
    "fallback": "a class predicted when in doubt",
}
MOST_ROWS = 12
"""Comparisons in a table; the page and results.json hold all of them."""
COLUMNS = ("Attribute", "Measure", "State", "Gap", "p", "Lowest", "Highest")


def rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """Every comparison as text, by `COLUMNS`."""
    return [
        (
            entry.attribute,
            measure(entry),
            STATES[entry.state],
            f"{formats.points(entry.gap.value)} ({ends(entry.gap)})",
            formats.p_value(entry.p),
            rated(entry, entry.lowest.name, entry.lowest.value, entry.lowest.n),
            rated(entry, entry.highest.name, entry.highest.value, entry.highest.n),
        )
        for entry in verdict.disparity
    ]


def measure(entry: Disparity) -> str:
    """Name of what is compared, with its class."""
    name = {
        "accuracy": "accuracy",
        "positive_rate": "rate of predicting",
        "true_positive_rate": "true positive rate",
        "false_positive_rate": "false positive rate",
        "recall_of_class": "recall",
        "calibration_error": "calibration gap (label minus probability)",
    }[entry.measure]
    if entry.class_ is None:
        return name
    return f"{name} {entry.class_}" if entry.measure == "positive_rate" else f"{name} of class {entry.class_}"


def listing(names: Sequence[str], word: str = "and") -> str:
    """
    >>> listing(["a"]), listing(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def groups(entry: Disparity) -> str:
    """Both groups with value and n, the worse one first: with the lowest value, of false positives the highest."""
    low, high = (rated(entry, group.name, group.value, group.n) for group in (entry.lowest, entry.highest))
    return f"{high}, {low}" if entry.measure == "false_positive_rate" else f"{low}, {high}"


def worse(entry: Disparity) -> str:
    return entry.highest.name if entry.measure == "false_positive_rate" else entry.lowest.name


def rated(entry: Disparity, name: str, value: float, n: int) -> str:
    text = formats.signed_points(value) if entry.measure == "calibration_error" else formats.percent(value)
    return f"{text} for {name} (n = {formats.count(n)})"


def claim(one: Reliance) -> str:
    """What a shown reliance is called on its evidence."""
    if one.state == "shown":
        return f"The model relies on {one.attribute}: {CHANGED[one.evidence].replace('{a}', one.attribute)}"
    if one.evidence.startswith("given:"):
        names = one.evidence.removeprefix("given:").split(",")
        columns, s = listing(names), "s" if len(names) == 1 else ""
        return f"Decisions depend on {one.attribute} beyond what {columns} explain{s}, {CAVEAT}"
    if one.drawn == "as_they_come":
        return (
            f"The model favours the class associated with {one.attribute} more than the labels of this test set "
            f"justify, {CAVEAT}"
        )
    return f"The model relies on {one.attribute}, {CAVEAT}"


def lean(one: Reliance) -> str:
    """How much more accurate the model is where the attribute is associated with the label; empty if unknown."""
    if one.lean is None:
        return ""
    sign = ";" if one.state == "shown" else ":"
    where = f"where {one.attribute} is associated with the label than elsewhere"
    if one.lean.value < 0:
        return f"{sign} accuracy is not higher {where} ({signed(one.lean)})"
    return f"{sign} accuracy is {formats.points(one.lean.value)} ({ends(one.lean)}) higher {where}"


def effect(effect: RepairEffect | None) -> str:
    if effect is None:
        return "an unknown amount"
    p, low, high = formats.p_value(effect.p), number(effect.low), number(effect.high)
    return f"{formats.signed_points(effect.gain)} ({low} to {high}; p {p})"


def ends(gap: Estimate) -> str:
    return f"{number(gap.low)} to {number(gap.high)}"


def signed(estimate: Estimate) -> str:
    """A difference in points, with its interval."""
    return f"{formats.signed_points(estimate.value)}, {number(estimate.low)} to {number(estimate.high)}"


def number(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")
