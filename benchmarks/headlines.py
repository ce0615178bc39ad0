"""The README's six lines of results, made from the JSON, so that they cannot drift."""

from collections.abc import Mapping
from typing import Any

from table_parts import read

Row = Mapping[str, Any]


def headlines() -> str:
    """A line per result, each with its file; the pages behind them have intervals, settings and what was missed."""
    lines = [
        digits("fmd_digits"),
        colored_mnist("fmd_full_colored_mnist"),
        signal_is_harder("colored_mnist"),
        aug_cell("colored_mnist"),
        dbvae("dbvae"),
        speed("cam"),
    ]
    return "\n".join(f"- {line}" for line in lines)


def row_of(table: Mapping[str, Any], **wanted: Any) -> Row:
    """The only row of a summary with these values."""
    found = [row for row in table["summary"] if all(row.get(name) == value for name, value in wanted.items())]
    if len(found) != 1:
        raise ValueError(f"expected one row with {wanted}, got {len(found)}")
    return found[0]


def share(value: float) -> str:
    return f"{100 * value:.1f}"


def link(name: str) -> str:
    return f"[{name}.json]({{root}}results/{name}.json)"


def digits(name: str) -> str:
    before, after = (row_of(read(name), conflicting=0.02, method=method) for method in ("erm", "fmd ext"))
    accuracy = [share(row["bias_conflicting_accuracy"]["value"]) for row in (before, after)]
    return (
        f"Fast Model Debias, embedded digits, 2 % bias-conflicting: accuracy on bias-conflicting digits {accuracy[0]} "
        f"to {accuracy[1]} % in {after['seconds']['median']:.1f} s ({before['seeds']} seeds, {link(name)})."
    )


def colored_mnist(name: str) -> str:
    methods = ("erm", "fmd ext", "fine-tune all")
    rows = [row_of(read(name), cell="0.5 %", method=method) for method in methods]
    plain, edited, tuned = (share(row["accuracy"]["value"]) for row in rows)
    return (
        f"Colored MNIST, 0.5 % bias-conflicting, repaired with held-out digits: plain training {plain} %, FMD {edited} "
        f"%, fine-tuning all layers {tuned} % ({link(name)})."
    )


def by_ratio(name: str, method: str, ratios: tuple[float, ...]) -> str:
    rows = [row_of(read(name), method=method, conflicting=ratio) for ratio in ratios]
    return " / ".join(share(row["accuracy"]["mean"]) for row in rows)


RATIOS = (0.005, 0.01, 0.02, 0.05)


def signal_is_harder(name: str) -> str:
    published = " / ".join(
        f"{row_of(read(name), method='sih', conflicting=ratio)['published']['mean']:.1f}" for ratio in RATIOS
    )
    return (
        f"Signal is Harder, Colored MNIST at 0.5 / 1 / 2 / 5 %: {by_ratio(name, 'sih', RATIOS)} % (published "
        f"{published}; plain training {by_ratio(name, 'erm', RATIOS)}; {link(name)})."
    )


def aug_cell(name: str) -> str:
    return f"AUG-CELL (ours, no bias labels), the same: {by_ratio(name, 'aug-cell', RATIOS)} % ({link(name)})."


def dbvae(name: str) -> str:
    rows = [row_of(read(name), case="inverted", arm=arm) for arm in ("vae", "dbvae")]
    uniform, drawn = (share(row["rare"]["value"]) for row in rows)
    return (
        f"DB-VAE, generated faces whose rare group is shown in negative: {uniform} % of the rare group right with "
        f"uniform draws, {drawn} % with DB-VAE's. Natural groups gain nothing ({link(name)})."
    )


def speed(name: str) -> str:
    figures = read(name)["rows"][0]["figures"]
    return (
        f"Maps of all 40 classes of a ResNet-18 take {figures['native / forward']:.2f} times the forward pass; a loop "
        f"over classes takes {figures['grad-cam loop / native']:.0f} times as long ({link(name)})."
    )
