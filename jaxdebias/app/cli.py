"""The command line: assembles the commands, each of which is a file with a dataclass of options that executes itself.

Exit codes: 0 done, 1 a check failed, 2 the input was wrong, 130 interrupted.
"""

import contextlib
import io
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import tyro
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, subcommand

from jaxdebias.app.audit import Audit
from jaxdebias.app.check import Check
from jaxdebias.app.compare import Compare
from jaxdebias.app.data import List, Prepare
from jaxdebias.app.debias import Debias
from jaxdebias.app.features import DebiasFeatures
from jaxdebias.app.language import DebiasLanguage
from jaxdebias.app.old_spellings import modern
from jaxdebias.app.predictions import AuditPredictions
from jaxdebias.app.quickstart import Quickstart
from jaxdebias.app.reproduce import Reproduce
from jaxdebias.app.show import Show
from jaxdebias.app.train import Train
from jaxdebias.contracts import ContractError
from jaxdebias.files import one_line

Data = Annotated[List, subcommand("list")] | Annotated[Prepare, subcommand("prepare")]
COMMANDS = {
    "quickstart": (Quickstart, "Train on real digits, measure, repair, report; no download."),
    "train": (Train, "Train a classifier and measure its bias."),
    "debias": (Debias, "Repair a trained run."),
    "debias-features": (DebiasFeatures, "Repair a last layer that comes as a file."),
    "debias-language": (DebiasLanguage, "Repair a GPT-2 or a BERT."),
    "show": (Show, "Show a result; add maps and patches to it."),
    "audit": (Audit, "Five answers about a run: is there a shortcut, what to do."),
    "audit-predictions": (AuditPredictions, "The same from predictions of any model."),
    "check": (Check, "Hold a result to bounds, for continuous integration."),
    "compare": (Compare, "What differs between two results, with intervals."),
    "reproduce": (Reproduce, "Reproduce a paper's table beside the published rows."),
    "data": (Data, "List the data sets, or prepare one for other pipelines."),
}
"""Name -> options, and one line."""
OVERVIEW = """Find the shortcut a classifier has learned, and take it out again.

Begin with `jaxdebias quickstart`. Each command has its own --help; --version prints the version."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `jaxdebias`. Whatever a user can cause is one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"jaxdebias {_version()}")
        return
    new, changed = modern(arguments)
    if changed:
        print(f"jaxdebias: this is now spelled: jaxdebias {shlex.join(new)}", file=sys.stderr)
    options = None
    try:
        with _stopped_by_signals():
            options = _parse(new)
            code = options.execute()
    except (ContractError, FloatingPointError) as error:
        code = _complain(str(error))
    except BrokenPipeError:
        # Whoever read our output has gone; what is left unprinted has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except OSError as error:
        code = _complain(one_line(error))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        code = _complain(f"out of memory ({one_line(error)[:120]}); smaller data or a smaller model fits")
    except KeyboardInterrupt:
        resume = f"; the same command resumes: jaxdebias {shlex.join(new)}" if hasattr(options, "out") else ""
        below_a_bar = "\n" if sys.stdout is not None and sys.stdout.isatty() else ""
        print(f"{below_a_bar}jaxdebias: interrupted{resume}", file=sys.stderr)
        code = 130
    if code:
        sys.exit(code)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM stops a command as Ctrl-C does: what is finished is saved, and the last line says how to resume."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("jaxdebias")
    except PackageNotFoundError:
        return "(not installed)"


def _parse(arguments: list[str]) -> Any:
    """Parses the command; tyro's boxed error becomes one line."""
    overview = not arguments or arguments[0] in ("-h", "--help")
    union: Any = None
    for name, (options, line) in COMMANDS.items():
        one = Annotated[options, subcommand(name, description=line if overview or options is Data else None)]
        union = one if union is None else union | one
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                union,
                prog="jaxdebias",
                args=arguments or ["--help"],
                config=(OmitSubcommandPrefixes, OmitArgPrefixes),
                description=OVERVIEW,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise SystemExit(_complain(_one_line(box.getvalue()))) from None


def _one_line(box: str) -> str:
    """A boxed, ruled message on one line: its first paragraph, with the advice of its second."""
    paragraphs: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        line = line.strip("│ ")
        if line.startswith(("╭", "╰")):
            continue
        if not line.strip("─- "):
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    if "╭" not in box:
        del paragraphs[0]  # where the terminal knows no such characters, the title is a paragraph of its own
    found = [" ".join(paragraph) for paragraph in paragraphs if paragraph] or ["bad arguments"]
    if found[0].startswith("Missing from"):
        command, names = found[0].split(":", 1)
        found[0] = f"{command}: {', '.join(re.findall(r'--[a-z][a-z-]*(?= [A-Z{])|(?:^ *)[A-Z]+(?= )', names))}"
    if found[1:] and found[1].startswith("Perhaps") and (near := re.search(r"--[a-z-]+", found[1])):
        found[0] += f" (did you mean {near[0]}?)"
    elif found[1:] and found[1].startswith("Available"):
        found[0] += f" ({found[1]})"
    return f"{found[0].rstrip('.')}; see --help"


def _complain(message: str) -> int:
    print("jaxdebias: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
