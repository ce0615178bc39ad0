"""What was done to commands, files and calls, and what survived: the table of faults."""

import table_parts
from table_parts import markdown, read, source


def faults() -> str:
    """A row for each kind of fault that has been measured: tried, survived, and what did not."""
    rows = []
    if has("faults_kills"):
        for one in read("faults_kills")["summary"]:
            what = f"kill of `{one['command']}` before each change of the file system, then the same command"
            rows.append((what, one["states"], one["equal"], "the same bits, no other file"))
    if has("faults_flips"):
        found = read("faults_flips")["summary"]
        kinds = found["outcomes"]
        said = (
            f"{kinds['refused, file named']:,} refused by the file's name, {kinds['the same result']:,} without effect"
        )
        survived = kinds["refused, file named"] + kinds["the same result"]
        rows.append((f"flip of one bit in one of {found['files']} files of a training", found["flips"], survived, said))
    if has("faults_fuzz"):
        found = read("faults_fuzz")["summary"]
        kinds = found["outcomes"]
        said = f"{kinds['refused in one line']:,} refused in one line, {kinds['answered']:,} answered"
        survived = kinds["refused in one line"] + kinds["answered"]
        what = f"call of one of {found['functions']} functions with one or two changed arguments"
        rows.append((what, found["calls"], survived, said))
    if not rows:
        return "Not measured yet."
    cells = [(what, f"{tried:,}", f"{survived:,}", said) for what, tried, survived, said in rows]
    sources = [source(name) for name in ("faults_kills", "faults_flips", "faults_fuzz") if has(name)]
    return markdown(("fault", "tried", "survived", "how"), cells) + "".join(sources)


def has(name: str) -> bool:
    return (table_parts.RESULTS / f"{name}.json").exists()
