"""What the rows of audit_networks.py say: right states and advice by cell, margins."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from audit_sets import FAMILIES

from jaxdebias.measure import Interval, proportion_interval

JUDGES = {"pictures only": "aug-cell", "biased branch": "sih"}

# part, quantity, sign, bound: set before the full run.
MARGINS = (
    ("sets", "false alarms, clean", "<=", 0.05),
    ("sets", "right verdicts, clean and strong", ">=", 0.90),
    ("sets", "right advice, clean and strong", ">=", 0.90),
    ("small accept", "right advice", ">=", 0.90),
    ("pictures only", "right suspicions", ">=", 0.90),
    ("biased branch", "right suspicions", ">=", 0.90),
)


class Cell(NamedTuple):
    """One data set of the plan."""

    part: str
    family: str
    conflicting: float | str
    """A share, or `none`; of digits by pictures only, `random` or `grey`."""
    seed: int


def rounded(interval: Interval) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in interval._asdict().items()}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Part -> quantity -> a share with its exact interval."""

    def share(of: Sequence[bool]) -> dict[str, float]:
        return rounded(proportion_interval(sum(of), len(of)))

    said: dict[str, dict[str, Any]] = {}
    sets = [row for row in rows if row["part"] == "sets"]
    of = {state: [row for row in sets if row["state"] == state] for state in ("clean", "strong", "weak")}
    if of["clean"] and of["strong"]:
        both = of["clean"] + of["strong"]
        tested = [(row, name) for row in sets for name in row["verdicts"] if name != FAMILIES[row["family"]].planted]
        said["sets"] = {
            "false alarms, clean": share([not row["right"] for row in of["clean"]]),
            "false alarms, strong and weak": share(
                [bool(set(called(row)) - {FAMILIES[row["family"]].planted}) for row in of["strong"] + of["weak"]]
            ),
            "false alarms per decoy": share([row["verdicts"][name] in CALLED for row, name in tested]),
            "shortcut found, strong": share([FAMILIES[row["family"]].planted in called(row) for row in of["strong"]]),
            "right verdicts, clean and strong": share([row["right"] for row in both]),
            "right advice, clean": share([row["right_advice"] for row in of["clean"]]),
            "right advice, strong": share([row["right_advice"] for row in of["strong"]]),
            "right advice, clean and strong": share([row["right_advice"] for row in both]),
            "fixes that held": share([bool(row["held"]) for row in sets if row["held"] is not None]),
            "held, and the oracle agrees": share([row["gain"]["low"] > 0 for row in sets if row["held"]]),
            "right verdicts, weak": share([row["right"] for row in of["weak"]]),
            "shortcut found, weak": share([FAMILIES[row["family"]].planted in called(row) for row in of["weak"]]),
        }
    small = [row for row in rows if row["part"] == "small accept"]
    if small:
        said["small accept"] = {"right advice": share([row["right_advice"] for row in small])}
    for part in JUDGES:
        pictures = [row for row in rows if row["part"] == part]
        said[part] = {
            "right suspicions": share([row["right"] for row in pictures if row["state"] != "weak"]),
            **{
                f"suspected, {state}": share([row["suspected"] for row in pictures if row["state"] == state])
                for state in ("biased", "clean", "weak")
            },
        }
    counted = {part: {name: one for name, one in of.items() if one["n"]} for part, of in said.items()}
    return {part: of for part, of in counted.items() if of}


CALLED = ("shown", "shown_given", "shortcut")
"""States that call an attribute relied on; the last one is that of rows measured before there were grades."""


def called(row: dict[str, Any]) -> list[str]:
    return [name for name, verdict in row["verdicts"].items() if verdict in CALLED]


def verdicts(said: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The margins on the shares, as counted; their intervals stand beside them."""
    out = []
    for part, quantity, sign, bound in MARGINS:
        if quantity in said.get(part, {}):
            got = said[part][quantity]["value"]
            out.append(
                {
                    "part": part,
                    "quantity": quantity,
                    "margin": f"{sign} {bound}",
                    "got": got,
                    "met": bool(got >= bound if sign == ">=" else got <= bound),
                }
            )
    return out
