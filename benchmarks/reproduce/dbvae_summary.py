"""What the rows of dbvae.py say: means over seeds with intervals, margins, the aim."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from dbvae_cases import ARMS, CASES, NATURAL

from jaxdebias.measure import Interval, over_seeds, paired_interval, paired_over_seeds

# case, quantity, sign, bound. Quantities: "arm.value", the mean over seeds; "arm.value - arm.value", the mean of the
# paired differences; "recovered", what dbvae gains over vae as a share of what the oracle gains over vae.
MARGINS = (
    *(
        (case, quantity, ">=", bound)
        for case in ("inverted", "lighting")
        for quantity, bound in (("dbvae.share", 0.15), ("dbvae.auc", 0.9), ("dbvae.rare - vae.rare", 0.03))
    ),
    ("inverted", "recovered", ">=", 0.4),
    ("inverted", "dbvae.precision - vae.precision", ">=", 0.0),
    ("inverted", "dbvae.common - vae.common", ">=", -0.02),
    ("inverted", "product of 100.ess", "<=", 0.01),
    ("cue", "dbvae.rare - plain.rare", ">=", 0.10),
    ("cue", "dbvae.auc", ">=", 0.9),
    ("cue", "dbvae.auc - pooled.auc", ">=", 0.15),
    ("rotated", "dbvae.auc", "<=", 0.7),
    ("darkened", "dbvae.rare - plain.rare", ">=", 0.06),
    ("darkened", "dbvae.common - plain.common", ">=", -0.015),
    ("darkened", "dbvae.precision - plain.precision", ">=", 0.0),
    ("darkened", "dbvae.auc - pooled.auc", ">=", 0.15),
    *((case, "dbvae.rare - plain.rare", ">=", -0.03) for case in (*NATURAL, "rotated")),
)
AIM = 0.03
"""Of the worst group over plain on a natural group, by any arm but the oracle; tried, not expected."""
VALUES = (
    "accuracy",
    "rare",
    "common",
    "worst",
    "precision",
    "variance",
    "ess",
    "share",
    "auc",
    "never_drawn",
    "largest",
)
FOLLOWS = 0.7
"""An AUC below says that the weights do not follow the rare group."""


def packed(right: np.ndarray) -> dict[str, Any]:
    """Which faces were recognised, so that two arms can be compared face by face."""
    return {"n": len(right), "bits": np.packbits(right).tobytes().hex()}


def unpacked(stored: dict[str, Any]) -> np.ndarray:
    bits = np.frombuffer(bytes.fromhex(stored["bits"]), np.uint8)
    return np.unpackbits(bits, count=stored["n"]).astype(bool)


def value_of(row: dict[str, Any], name: str) -> float:
    found = row.get(name, float("nan"))
    return float(found["value"] if isinstance(found, dict) else found)


class Rows:
    """The rows of one case, by arm and seed; only seeds that an arm has in common with another are compared."""

    def __init__(self, rows: Sequence[dict[str, Any]], case: str):
        self.at = {(row["arm"], row["seed"]): row for row in rows if row["case"] == case}

    def seeds(self, *arms: str) -> list[int]:
        return sorted(seed for seed in {seed for _, seed in self.at} if all((arm, seed) in self.at for arm in arms))

    def values(self, arm: str, name: str, seeds: Sequence[int]) -> np.ndarray:
        return np.array([value_of(self.at[arm, seed], name) for seed in seeds])

    def quantity(self, name: str) -> Interval | None:
        """What `MARGINS` names, over seeds; None where rows are missing."""
        if name == "recovered":
            seeds = self.seeds("dbvae", "vae", "oracle")
            if not seeds:
                return None
            ours, theirs, best = (self.values(arm, "rare", seeds).mean() for arm in ("dbvae", "vae", "oracle"))
            share = float((ours - theirs) / (best - theirs)) if best > theirs else float("nan")
            return Interval(share, float("nan"), float("nan"), len(seeds))
        terms = [part.rsplit(".", 1) for part in name.split(" - ")]
        seeds = self.seeds(*(arm for arm, _ in terms))
        if not seeds:
            return None
        values = [self.values(arm, value, seeds) for arm, value in terms]
        return over_seeds(values[0]) if len(values) == 1 else paired_over_seeds(values[1], values[0])

    def over_faces(self, arm: str, other: str, group: str) -> Interval | None:
        """Mean over seeds of `arm - other` on the test faces of a group, its score interval over these faces.

        The seeds are taken as they are: their spread is in the other interval.
        """
        seeds = self.seeds(arm, other)
        if not seeds:
            return None
        sides = [[unpacked(self.at[one, seed]["right"][group]) for one in (arm, other)] for seed in seeds]
        gains, losses = ([int((first & ~second).sum()) for first, second in pairs]
                         for pairs in (sides, [side[::-1] for side in sides]))  # fmt: skip
        return paired_interval(gains, losses, [len(ours) for ours, _ in sides], [1.0 / len(seeds)] * len(seeds))


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per case and arm: means over seeds, and gains over plain and over the VAE with uniform draws."""
    said = []
    for case in CASES:
        of = Rows(rows, case)
        for arm in ARMS:
            seeds = of.seeds(arm)
            if not seeds:
                continue
            row: dict[str, Any] = {"case": case, "arm": arm, "seeds": len(seeds)}
            for name in VALUES:
                values = of.values(arm, name, seeds)
                if np.isfinite(values).all():
                    row[name] = over_seeds(values)._asdict()
            for other in ("plain", "vae"):
                if other == arm or not of.seeds(arm, other):
                    continue
                row[f"gain over {other}"] = {
                    **{
                        name: of.quantity(f"{arm}.{name} - {other}.{name}")._asdict()
                        for name in ("rare", "common", "worst", "precision")
                    },
                    **{
                        f"{group}, over faces": of.over_faces(arm, other, group)._asdict()
                        for group in ("rare", "common")
                    },
                }
            if "auc" in row:
                row["follows"] = row["auc"]["value"] >= FOLLOWS
            said.append(row)
    return said


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The margins on what was measured; a value that does not exist (NaN) has missed."""
    out = []
    for case, quantity, sign, bound in MARGINS:
        got = Rows(rows, case).quantity(quantity)
        if got is not None:
            met = bool(got.value >= bound if sign == ">=" else got.value <= bound)
            out.append(
                {
                    "case": case,
                    "quantity": quantity,
                    "margin": f"{sign} {bound}",
                    "got": got.value,
                    "met": met,
                    "seeds": got.n,
                }
            )
    return out


def aim(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each arm does for the worst group of each natural case, beside the oracle; `reached` wants the mean gain at
    `AIM` and its interval over seeds above 0. With this many tries one may reach it by chance."""
    out = []
    for case in NATURAL:
        of = Rows(rows, case)
        for arm in ARMS:
            got = of.quantity(f"{arm}.worst - plain.worst") if arm != "plain" else None
            if got is not None:
                out.append(
                    {
                        "case": case,
                        "arm": arm,
                        **got._asdict(),
                        "knows groups": arm == "oracle",
                        "reached": bool(arm != "oracle" and got.value >= AIM and got.low > 0),
                    }
                )
    return out
