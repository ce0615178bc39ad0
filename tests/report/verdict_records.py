"""Forty verdicts: every state of disparity with every state of reliance, and the edges of each."""

import functools

from jaxdebias.auditing.verdict import Repair, decide
from jaxdebias.measure import (
    Association,
    AttributeDisparity,
    Interval,
    PairedChange,
    RatedGroup,
    Reliance,
    Rival,
    Rivals,
    SmallGroup,
)
from jaxdebias.report.verdict_words import with_words
from jaxdebias.results._build_verdict import verdict as verdict_record

LABELS = ("no", "yes", "maybe")
EVIL = "<b>x</b> & |*_`"


UNCHECKED = Rivals(*[Rival("not_checked", None)] * 3)
OPEN = Rivals(Rival("open", 0.21), Rival("not_checked", None), Rival("excluded", 1.02))


def entry(attribute, state, *, measure="accuracy", class_=None, n=400, low=0.62, high=None, left_out=(), **more):
    """A comparison in this state, whose numbers fit it."""
    gap, ends, p = {
        "exceeds": (0.35, (0.29, 0.41), 0.0004),
        "within": (0.01, (0.0, 0.04), 0.61),
        "cannot_tell": (0.08, (0.0, 0.17), 0.07),
    }[state]
    top = low + gap if high is None else high
    groups = [RatedGroup(name, n, value, max(value - 0.05, -1), min(value + 0.05, 1)) for name, value in
              ((more.get("worst", "young"), low), (more.get("best", "old"), top))]  # fmt: skip
    return AttributeDisparity(
        attribute=attribute, measure=measure, class_=class_, state=state, gap=Interval(gap, *ends, 2 * n), p=p,
        highest=groups[1], lowest=groups[0], left_out=tuple(SmallGroup(*small) for small in left_out),
        indistinguishable=more.get("indistinguishable", 0),
    )  # fmt: skip


def reliance(attribute, kind):
    """What is known about one attribute, by a short name of the evidence."""
    lean, shown = Interval(0.31, 0.25, 0.37, 900), ("excluded", 0.004)
    fields = {
        "twins": ("shown", "unknown", "twins", lean, 0.0001, 120, None, (), UNCHECKED),
        "flipped": ("shown", "picked", "flipped_column", None, 0.002, 60, None, (), UNCHECKED),
        "assigned": ("shown_given", "assigned", "mistakes", lean, 0.003, 90, 0.06, (), Rivals(*[Rival(*shown)] * 3)),
        "as_they_come": ("shown_given", "as_they_come", "mistakes", lean, 0.012, 90, 0.06, (), OPEN),
        "given": ("shown_given", "picked", "given:age,priors", lean, 0.0004, 90, 0.06, (), OPEN),
        "consistent": ("consistent", "picked", "mistakes", lean, 0.02, 90, 0.06, (), OPEN),
        "no_sign": ("no_sign", "unknown", "mistakes", Interval(0.01, -0.02, 0.04, 900), 0.44, 80, 0.07, (), UNCHECKED),
        "few": ("cannot_tell", "unknown", "mistakes", Interval(0.05, -0.2, 0.3, 90), 0.3, 9, 0.27, (), UNCHECKED),
        "no_direction": ("cannot_tell", "unknown", "mistakes", None, None, 80, None, (), UNCHECKED),
        "explained": ("no_sign", "unknown", "mistakes", lean, 0.7, 80, 0.07, ("colour",), UNCHECKED),
        "copy": ("consistent", "unknown", "mistakes", lean, 0.02, 80, 0.07, ("shade",), OPEN),
    }[kind]
    return Reliance(attribute, *fields)


def change(gain, *, sure, discordant=60):
    half = gain / 2 if sure else 2 * abs(gain) + 0.01
    return PairedChange(gain, gain - half, gain + half, 400, 0.001 if sure else 0.4, discordant, sure)


REPAIRS = {
    "none": (),
    "verified": (Repair("dfr", change(0.08, sure=True), change(0.07, sure=True)),),
    "recommended": (Repair("dfr", change(0.06, sure=True), None),),
    "not_held": (Repair("fine_tune", change(0.05, sure=True), change(0.01, sure=False)),),
    "useless": (Repair("fmd", change(-0.004, sure=False), None), Repair("dfr", change(0.006, sure=True), None)),
}
KINDS = ("twins", "assigned", "as_they_come", "given", "consistent", "no_sign", "few", "no_direction")
TABLE = Association("age", Interval(0.42, 0.33, 0.51, 800), 800)
UNKNOWN = Association("age", None, 0)


def _grid():
    """Every state of disparity with every kind of reliance; the repairs take turns."""
    for i, state in enumerate(("exceeds", "within", "cannot_tell")):
        for j, kind in enumerate(KINDS):
            names = list(REPAIRS)
            chosen = REPAIRS[names[(i + j) % len(names)]]
            yield f"{state}-{kind}-{names[(i + j) % len(names)]}", {
                "disparity": (entry("age", state),), "reliance": (reliance("age", kind),),
                "association": ((TABLE, UNKNOWN)[(i + j) % 2],), "repairs": chosen,
            }  # fmt: skip


def _edges():
    age, sex = reliance("age", "no_sign"), reliance("sex", "no_sign")
    yield "nothing given", {"disparity": (), "reliance": ()}
    yield (
        "verified disparity",
        {"disparity": (entry("age", "exceeds"),), "reliance": (age,), "repairs": REPAIRS["verified"]},
    )
    yield (
        "three classes",
        {
            "disparity": (entry("age", "exceeds", measure="recall_of_class", class_=2),),
            "reliance": (reliance("age", "twins"),),
        },
    )
    yield (
        "false positives",
        {
            "disparity": (entry("race", "exceeds", measure="false_positive_rate", class_=1, low=0.2),),
            "reliance": (age,),
        },
    )
    yield (
        "true positives",
        {"disparity": (entry("race", "cannot_tell", measure="true_positive_rate", class_=1),), "reliance": (age, sex)},
    )
    yield (
        "positive rate alone exceeds",
        {
            "disparity": (entry("age", "within"), entry("age", "exceeds", measure="positive_rate", class_=1)),
            "reliance": (age,),
        },
    )
    yield (
        "calibration",
        {
            "disparity": (
                entry("age", "within"),
                entry("age", "exceeds", measure="calibration_error", class_=1, low=-0.2, left_out=(("old", 60),)),
            ),
            "reliance": (age,),
        },
    )
    yield (
        "pairs",
        {
            "disparity": (
                entry("sex x age", "exceeds", worst="f, young", best="m, old", n=41, indistinguishable=3),
                entry("sex", "within"),
                entry("age", "cannot_tell"),
            ),
            "reliance": (age, sex),
        },
    )
    yield (
        "small groups",
        {
            "disparity": (
                entry("age", "exceeds", left_out=(("0", 3), ("1", 9), ("2", 12), ("3", 4), ("4", 5), ("5", 6))),
            ),
            "reliance": (reliance("age", "consistent"),),
        },
    )
    yield (
        "too small to compare",
        {
            "disparity": (entry("age", "cannot_tell", n=12, left_out=(("old", 12),)),),
            "reliance": (reliance("age", "few"),),
        },
    )
    yield "names", {
        "disparity": (entry(EVIL, "exceeds", worst="</td><script>", best="a|b"),),
            "reliance": (reliance(EVIL, "consistent"),),
        "association": (Association(EVIL, Interval(0.0, 0.0, 0.1, 90), 90),),
    }  # fmt: skip
    yield (
        "evil advice",
        {
            "disparity": (entry(EVIL, "cannot_tell", worst="{{7*7}}", best="[x](y)"),),
            "reliance": (reliance(EVIL, "few"),),
        },
    )
    yield "several shown", {
        "disparity": (entry("sex", "within"),), "repairs": REPAIRS["useless"],
        "reliance": (reliance("sex", "flipped"), reliance("age", "as_they_come"), reliance("race", "consistent")),
    }  # fmt: skip
    yield (
        "copies",
        {
            "disparity": (entry("colour", "within"),),
            "reliance": (reliance("colour", "copy"), reliance("marker", "explained"), sex),
        },
    )
    yield "many comparisons", {
        "disparity": tuple(
            [entry(f"a{i}", "exceeds") for i in range(6)] + [entry(f"b{i}", "cannot_tell") for i in range(3)]
            + [entry("c", "within")]
        ),
        "reliance": (reliance("a0", "no_sign"), reliance("b0", "few")),
    }  # fmt: skip
    yield "near the tolerance", {"disparity": (entry("age", "cannot_tell", high=0.67),), "reliance": (age,)}


@functools.cache
def verdicts():
    """Name -> record of a verdict, with its words."""
    cases = {**dict(_grid()), **dict(_edges())}
    return {name: with_words(verdict_record(decide(**case, rows=800), LABELS)) for name, case in cases.items()}
