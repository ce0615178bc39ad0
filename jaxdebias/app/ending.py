"""The last lines of a command: what it wrote and where, and what one would do next."""

from pathlib import Path

from jaxdebias.app.result_set import KEPT, RESULTS


def print_ending(command: str, out: Path, *, done_before: bool = False, next_steps: tuple[str, ...] = ()) -> None:
    """Prints what a complete result set holds.

    Args:
      command: name of the command.
      out: folder of the set.
      done_before: the set was complete before this call, which changed nothing.
      next_steps: commands that a user may want to type next, each with what it does after two spaces.
    """
    files = ", ".join(name for name in (RESULTS, *KEPT) if (Path(out) / name).exists())
    if done_before:
        print(f"Nothing to do: the same {command} is complete in {out} ({files}). --overwrite makes it anew.")
    else:
        print(f"Wrote to {out}: {files}.")
    if next_steps:
        print("Next:\n" + "\n".join(f"  {step}" for step in next_steps))
