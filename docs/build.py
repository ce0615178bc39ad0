"""API reference from the docstrings: `python docs/build.py OUT`, with `pip install ".[docs]"`. Warnings are errors."""

import argparse
import sys
import warnings
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the pages; made if missing")
    out = parser.parse_args().out

    import pdoc

    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pdoc.pdoc("jaxdebias", output_directory=out)
    for one in found:
        print(f"{one.filename}:{one.lineno}: {one.category.__name__}: {one.message}", file=sys.stderr)
    print(f"{len(list(out.rglob('*.html')))} pages, {len(found)} warnings: {out / 'index.html'}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
