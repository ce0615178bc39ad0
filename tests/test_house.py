"""The house: what lies where, and that a module's name means the module."""

import ast
import importlib
import pathlib

import jaxdebias

ROOT = pathlib.Path(jaxdebias.__file__).parents[1]
MOST_LINES = 400


def test_the_root_holds_seven_files():
    found = sorted(path.name for path in (ROOT / "jaxdebias").glob("*.py"))
    expected = ["__init__", "__main__", "_audit", "batching", "contracts", "core", "files"]
    assert found == [f"{name}.py" for name in expected]


def test_no_file_is_longer_than_one_reads():
    folders = ("jaxdebias", "tests", "benchmarks", "docs")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in paths}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert long == {}
    assert len(paths) > 200  # the folders were found


def names_bound_in(init: pathlib.Path, package: str) -> set[str]:
    """The names that a package's `__init__.py` binds to something else than its own modules."""
    bound = set()
    for node in ast.walk(ast.parse(init.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module != package:
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    return bound


def test_no_module_is_shadowed_by_what_its_package_exports():
    """Else `import jaxdebias.mitigate.erm` is a module and `jaxdebias.mitigate.erm` a function."""
    shadowed, modules = [], 0
    for init in (ROOT / "jaxdebias").rglob("__init__.py"):
        package = ".".join(init.parent.relative_to(ROOT).parts)
        own = {path.stem for path in init.parent.glob("*.py")} | {
            path.parent.name for path in init.parent.glob("*/__init__.py")
        }
        modules += len(own)
        shadowed += [f"{package}.{name}" for name in own & names_bound_in(init, package)]
    assert shadowed == []
    assert modules > 150


def test_packages_have_what_they_export():
    for name in (
        "data",
        "language",
        "measure",
        "mitigate",
        "models",
        "train",
        "explain",
        "explain.influence",
        "auditing",
    ):
        package = importlib.import_module(f"jaxdebias.{name}")
        assert [export for export in package.__all__ if not hasattr(package, export)] == [], name
