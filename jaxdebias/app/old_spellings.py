"""Spellings of version 0.1 that still work in 0.2: each is rewritten to the new one, which is printed."""

from collections.abc import Sequence

TABLES = {"colored-mnist": "sih-colored-mnist", "corrupted-cifar10": "sih-corrupted-cifar10"}
"""Tables of `reproduce` from before there were several of a data set."""
AUDIT_ONLY = ("--candidates", "--attribute", "--fix", "--pixels", "--discover", "--judges", "--seed", "--overwrite")


def modern(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments in today's spelling, and whether that differs from what was given.

    >>> modern(["audit", "--predictions", "p.csv", "--out", "o"])
    (['audit-predictions', '--out', 'o', 'p.csv'], True)
    >>> modern(["audit", "run", "--maps"])
    (['show', 'run', '--maps'], True)
    >>> modern(["reproduce", "colored-mnist", "--ratios", "0.02"])
    (['reproduce', 'sih-colored-mnist', '--levels', '0.02'], True)
    >>> modern(["audit", "run", "--out", "o"])
    (['audit', 'run', '--out', 'o'], False)
    """
    given = _split_values(arguments)
    asks_help = any(one in ("-h", "--help") for one in given)
    if not given or asks_help:
        return list(arguments), False
    command, rest = given[0], given[1:]
    if command == "audit" and "--predictions" in rest:
        command, rest = "audit-predictions", _as_positional(rest, "--predictions")
    elif command == "audit" and "--out" not in rest and not any(name in rest for name in AUDIT_ONLY) and rest:
        command = "show"
    elif command == "debias" and "--features" in rest:
        command = "debias-features"
    elif command == "debias" and _value(rest, "--data") == "language":
        at = rest.index("--data")
        command, rest = "debias-language", rest[:at] + rest[at + 2 :]
    if command.startswith("debias"):
        rest = ["--max-aligned-loss" if one == "--aligned-floor" else one for one in rest]
    if command == "reproduce":
        rest = ["--levels" if one == "--ratios" else one for one in rest]
        rest = [
            TABLES.get(one, one) if not before.startswith("--") else one
            for before, one in zip(["", *rest], rest, strict=False)
        ]
    new = [command, *rest]
    return (new, True) if new != given else (list(arguments), False)


def _split_values(arguments: Sequence[str]) -> list[str]:
    """`--name=value` as two arguments."""
    found: list[str] = []
    for one in arguments:
        name, equals, value = one.partition("=")
        found += [name, value] if equals and name.startswith("--") else [one]
    return found


def _value(arguments: Sequence[str], name: str) -> str | None:
    at = arguments.index(name) + 1 if name in arguments else len(arguments)
    return arguments[at] if at < len(arguments) else None


def _as_positional(arguments: Sequence[str], name: str) -> list[str]:
    """Takes the name of an option away and puts its value at the end."""
    at = arguments.index(name)
    return [*arguments[:at], *arguments[at + 2 :], *arguments[at + 1 : at + 2]]
