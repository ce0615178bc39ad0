"""Who was drawn, in words and pictures: what page and terminal say about `results["draws"]`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxdebias.contracts import describe, expect
from jaxdebias.core import Array
from jaxdebias.report import figures, formats, wording
from jaxdebias.report.figures import Series

FOLLOWS = 0.7
"""From this AUC on, the weights are said to follow a group; 0.5 is blind to it."""
MOST_GROUPS = 24
"""With more groups than this only all conflicting samples together are shown."""

Answer = Literal["even", "unknown", "follows", "blind"]


def rows_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sets of samples whose draws are shown: every group, or all conflicting ones; each with its `name`."""
    draws, labels, attributes = results["draws"], results["label_names"], results["attribute_names"]
    rows = [
        {
            **group,
            "name": f"{labels[group['label']]} · {attributes[group['attribute']]}",
            "aligned": results["aligned"][group["label"]][group["attribute"]],
        }
        for group in draws["groups"]
    ]
    rows = rows if len(rows) <= MOST_GROUPS else []
    if draws["conflicting"] is not None:
        rows.append({**draws["conflicting"], "name": "all bias-conflicting", "aligned": False})
    return rows


def followed(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The set that the weights follow most closely, if they follow one."""
    rows = [row for row in rows_of(results) if row["auc"] is not None and row["auc"] >= FOLLOWS]
    return max(rows, key=lambda row: row["auc"], default=None)


def answer(results: Mapping[str, Any]) -> Answer:
    """`even`: every sample was as likely as another. Else, whether the draws go with a known group."""
    draws = results["draws"]
    if draws["ess"] > 0.999:
        return "even"
    if not any(row["auc"] is not None for row in rows_of(results)):
        return "unknown"
    return "blind" if followed(results) is None else "follows"


def verdict(results: Mapping[str, Any]) -> str:
    """The answer in plain sentences."""
    items, kind = wording.words(results).items, answer(results)
    if kind == "even":
        why = (
            "no latent carried anything by which they could differ"
            if results["draws"]["carrying"] == 0
            else "the resampling had not begun"
        )
        return f"All {items} were as likely to be drawn after the last epoch: {why}."
    if kind == "unknown":
        return f"The data know no groups, so whether the draws go with one is not known. Look at the {items} below."
    if kind == "follows":
        row = followed(results)
        return (
            f"The draws follow a known group, {row['name']}: {formats.percent(row['row_share'])} of the {items}, "
            f"{formats.percent(row['draw_share'])} of the draws. One of them outweighs another of its label with "
            f"a chance of {row['auc']:.2f}."
        )
    highest = max(row["auc"] for row in rows_of(results) if row["auc"] is not None)
    return (
        f"The draws follow no known group (AUC at most {highest:.2f}; 0.50 is blind). What this model finds rare "
        "is something else, so no gain for a group is to be expected from the draws."
    )


def about(results: Mapping[str, Any]) -> str:
    """What the numbers are: for the head of the section."""
    items = wording.words(results).items
    return (
        f"Training drew those {items} more often that are rare in the model's own latent space, within their "
        "label. Weights are those after the last epoch. Groups are only compared with them here: no weight "
        "depends on a group."
    )


def facts(results: Mapping[str, Any]) -> list[str]:
    """Numbers of all weights together, as sentences."""
    draws, items = results["draws"], wording.words(results).items
    return [
        f"The draws are worth {formats.percent(draws['ess'], 0)} of the {formats.count(draws['rows'])} {items} "
        f"(effective sample size); {formats.percent(draws['never_drawn'], 0)} of them are left out of an epoch.",
        f"The heaviest gets {formats.percent(draws['largest'])} of the draws.",
        f"{draws['carrying']} of {len(draws['kl'])} latents carry at least 0.01 nats.",
    ]


def table(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The groups' numbers as text: `name`, `rows`, `draws`, `auc`."""
    return [
        {
            "name": row["name"],
            "rows": formats.percent(row["row_share"]),
            "draws": formats.percent(row["draw_share"]),
            "auc": formats.NONE if row["auc"] is None else f"{row['auc']:.2f}",
        }
        for row in rows_of(results)
    ]


COLUMNS = {"rows": "of the training set", "draws": "of the draws", "auc": "AUC of the weights"}
"""Key of `table` -> its header."""


def view(results: Mapping[str, Any], rare: Sequence[Array | None], common: Sequence[Array | None]) -> Any:
    """Everything the template shows of the draws; None without them.

    Args:
      results: of a run.
      rare: (images, reconstructions), `[m h w c]` each or None, of the first m of `results["draws"]["rarest"]`.
      common: the same of `commonest`.
    """
    if results.get("draws") is None:
        return None
    draws = results["draws"]
    return {
        "about": about(results), "verdict": verdict(results), "careful": answer(results) == "blind",
        "facts": facts(results), "rows": table(results), "columns": COLUMNS,
        "chart": _chart(draws), "histogram": _histogram(draws),
        "rare": _pictures(results, "rarest", *rare), "common": _pictures(results, "commonest", *common),
    }  # fmt: skip


def _chart(draws: Mapping[str, Any]) -> str:
    if len(draws["epochs"]) < 2:
        return ""
    return figures.lines([Series("effective sample size", "after", draws["ess_by_epoch"]),
                          Series("never drawn", "muted", draws["never_by_epoch"])], draws["epochs"],
                         step_name="epoch")  # fmt: skip


def _histogram(draws: Mapping[str, Any]) -> list[dict[str, str]]:
    """A bar for each bin of weights, from the first to the last that has samples."""
    counts, edges = draws["histogram"], draws["edges"]
    there = [i for i, count in enumerate(counts) if count]
    shown, most = range(there[0], there[-1] + 1), max(counts)
    return [{"name": f"{edges[i]:.2g}–{edges[i + 1]:.2g} ×", "value": formats.count(counts[i]),
             "bar": figures.bar({"value": counts[i], "low": None, "high": None}, "other", full=float(most))}
            for i in shown]  # fmt: skip


def _pictures(
    results: Mapping[str, Any], which: str, images: Array | None, decoded: Array | None
) -> list[dict[str, Any]]:
    if images is None or decoded is None:
        return []
    labels, attributes = results["label_names"], results["attribute_names"]
    shown = results["draws"][which][: len(images)]
    expect(
        len(decoded) == len(images) == len(shown),
        f"pictures.{which}",
        f"{len(shown)} images and reconstructions",
        describe(decoded),
    )
    out = []
    for image, rebuilt, sample in zip(images, decoded, shown, strict=True):
        name, attribute = labels[sample["label"]], sample["attribute"]
        name += f" · {attributes[attribute]}" if 0 <= attribute < len(attributes) else ""
        ratio = f"{sample['ratio']:.1f} ×" if sample["ratio"] >= 0.1 else f"{sample['ratio']:.2g} ×"
        out.append({"images": [figures.picture(image, name), figures.picture(rebuilt, f"{name}, rebuilt")],
                    "name": name, "ratio": ratio})  # fmt: skip
    return out


def print_draws(results: Mapping[str, Any], console: Any) -> None:
    """The verdict and the groups' numbers, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    console.print(Text(" ".join([about(results), *facts(results)])))
    rows = table(results)
    if rows:
        shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
        shown.add_column("draws")
        for header in COLUMNS.values():
            shown.add_column(header, justify="right")
        for row in rows:
            shown.add_row(*map(Text, row.values()))
        console.print(shown)
    console.print(Text(verdict(results)))
