"""API reference from the docstrings: `python docs/build.py OUT`, with `pip install ".[docs]"`. Warnings are errors."""

import argparse
import contextlib
import importlib
import pkgutil
import sys
import warnings
from pathlib import Path
from types import ModuleType


def without_aliases(package: ModuleType) -> None:
    """Leaves the fields of NamedTuples that have no docstring without one: Python's says "Alias for field number 3"."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if found.name.endswith("__main__"):
            continue
        for one in vars(importlib.import_module(found.name)).values():
            for name in getattr(one, "_fields", ()) if isinstance(one, type) else ():
                field = vars(one).get(name)
                if (getattr(field, "__doc__", None) or "").startswith("Alias for field number"):
                    field.__doc__ = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the pages; made if missing")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    import pdoc

    import jaxdebias

    without_aliases(jaxdebias)
    pdoc.render.configure(docformat="google", show_source=False)
    # The package that is imported, installed or not: pdoc warns where the working folder holds another.
    with contextlib.chdir(out), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pdoc.pdoc("jaxdebias", output_directory=out)
    for one in found:
        print(f"{one.filename}:{one.lineno}: {one.category.__name__}: {one.message}", file=sys.stderr)
    print(f"{len(list(out.rglob('*.html')))} pages, {len(found)} warnings: {out / 'index.html'}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
