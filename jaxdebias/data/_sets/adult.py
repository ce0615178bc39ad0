"""Adult (census income): a table whose protected column a model may use, with the column flipped as the twin."""

import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxdebias.contracts import ContractError, check_choice, check_dataset, describe, expect
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._matching import nearest_partners, one_hot, ordered
from jaxdebias.data.streams import named_rng

COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
)
NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
LOG_SCALED = ("capital-gain", "capital-loss")  # zero for nine rows in ten, up to 99,999 for the rest
UNUSED = ("fnlwgt",)  # a survey weight, no property of the person
ONE = {"sex": "Male", "race": "White"}  # the value that the protected column shows as 1
ZERO = {"sex": "Female", "race": "other"}
FILES = ("adult.data", "adult.test")
COUNTERPARTS = {("sex", "relationship"): {"Husband": "Wife", "Wife": "Husband"}}
"""(attribute, proxy) -> the value that says of the other group what this one says of its own. Others keep theirs."""

EDIT, ACCEPT = 4000, 3000


def adult(
    data_dir: str | pathlib.Path,
    *,
    attribute: str = "sex",
    seed: int = 0,
    edit: int = EDIT,
    accept: int = ACCEPT,
    proxies: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Dataset:
    """Does a person earn more than 50,000 dollars? With sex or race as the protected attribute.

    Columns of x, float32 `[n d]`: numbers standardised (gains and losses after log1p), categories one-hot with
    missing values as a category of their own, and the protected attribute as one 0/1 column. fnlwgt is left out.
    Categories, means and standard deviations are those of the train split; a category unseen there is all zeros.

    Splits: train, edit and accept are `adult.data` divided by seed (25,561 / 4,000 / 3,000 rows), test is
    `adult.test` (16,281). Pairs of edit, accept and test: x has the protected column set to the value aligned with
    its label (Male, or White, for more than 50K), twin has it flipped; nothing else changes, so proxies (husband,
    wife) stay as they are unless `proxies` names them.

    With `proxies`, a person appears with the own values on the side of the own group and with counterpart values on
    the other. A husband's counterpart is a wife (`COUNTERPARTS`). Where there is no natural counterpart (marital
    status), the values are taken, all from one person, from whoever of the other group and the same label in the
    train split is most alike in the remaining columns, counterparts put in first: `matching.nearest_partners` over
    one-hot categories and numbers cut at the deciles of the train split.

    Args:
      data_dir: the folder with UCI's `adult.data` and `adult.test`, or its parent if they lie in `adult/`.
      attribute: `sex` (Male 1, Female 0) or `race` (White 1, other 0).
      seed: fixes which rows go to train, edit and accept.
      edit: samples of the split edit.
      accept: samples of the split accept.
      proxies: categorical columns, by their names in `COLUMNS`, that change together with the attribute in pairs.
      without: columns that x does not have; the attribute may be one of them, and is known all the same. The two
        sides of a pair are then equal but for proxies.

    Returns:
      A data set with `feature_names`; `variant["protected_column"]` is the index of the 0/1 column, None without it.
      The variant has `proxies` and `without` where they are given.

    Raises:
      ContractError: a missing file, a bad line (named), an unknown attribute or column, a proxy that is taken out.

    Source: Becker and Kohavi, UCI, 1996. The sizes of edit and accept are ours.
    """
    check_choice("attribute", attribute, ONE)
    _check_columns("proxies", proxies, [name for name in COLUMNS if name not in (*NUMBERS, *UNUSED, attribute)])
    _check_columns("without", without, [name for name in COLUMNS if name not in UNUSED])
    both = [name for name in proxies if name in without]
    expect(not both, "proxies", "columns that `without` does not take out", ", ".join(both))
    folder = adult_folder(data_dir)
    table, label = _read(folder / "adult.data")
    table_test, label_test = _read(folder / "adult.test")
    held = _division(len(label), seed, edit, accept)

    fit = {name: values[held["train"]] for name, values in table.items()}
    parts = {name: (_rows(table, rows), label[rows]) for name, rows in held.items()}
    parts["test"] = table_test, label_test
    names = _encode(fit, fit, attribute, without)[1]

    def batch(table: dict[str, np.ndarray], label: np.ndarray) -> Batch:
        own = (table[attribute] == ONE[attribute]).astype(np.int32)
        return Batch(x=_encode(table, fit, attribute, without)[0], label=label, attribute=own)

    def pairs(table: dict[str, np.ndarray], label: np.ndarray) -> Batch:
        other = _other_group(table, label, *parts["train"], attribute, proxies)
        own = table[attribute] == ONE[attribute]
        sides = [
            {name: np.where(own == group, table[name], other[name]) for name in table}
            for group in (label == 1, label == 0)
        ]
        return batch(sides[0], label)._replace(twin=batch(sides[1], label).x)

    dataset = Dataset(
        name="adult",
        variant={
            "attribute": attribute,
            "protected_column": names.index(attribute) if attribute in names else None,
            **{name: len(parts[name][1]) for name in ("train", "edit", "accept", "test")},
            **({"proxies": list(proxies)} if proxies else {}),
            **({"without": list(without)} if without else {}),
        },
        splits={name: batch(*part) for name, part in parts.items()},
        pairs={name: pairs(*part) for name, part in parts.items() if name != "train"},
        label_names=("<=50K", ">50K"),
        attribute_names=(ZERO[attribute], ONE[attribute]),
        aligned=np.eye(2, dtype=bool),
        feature_names=tuple(names),
    )
    check_dataset(dataset)
    return dataset


def adult_columns(
    data_dir: str | pathlib.Path, names: Sequence[str], *, seed: int = 0, edit: int = 4000, accept: int = 3000
) -> dict[str, dict[str, list[str]]]:
    """Protected attributes on the rows of `adult`: name -> split -> values as text.

    Args:
      data_dir: as of `adult`.
      names: `sex` or `race`.
      seed: as of `adult`, so that the rows are the same.
      edit: as `seed`.
      accept: as `seed`.
    """
    folder = adult_folder(data_dir)
    table, label = _read(folder / FILES[0])
    held = _division(len(label), seed, edit, accept)
    tables = {**{split: _rows(table, rows) for split, rows in held.items()}, "test": _read(folder / FILES[1])[0]}
    for name in names:
        check_choice("attribute", name, ONE)
    return {
        name: {
            split: np.where(part[name] == ONE[name], ONE[name], ZERO[name]).tolist() for split, part in tables.items()
        }
        for name in names
    }


def _division(n: int, seed: int, edit: int, accept: int) -> dict[str, np.ndarray]:
    """edit, accept and train -> their rows of `adult.data`."""
    expect(
        edit > 0 and accept > 0 and edit + accept < n,
        "edit + accept",
        f"at least 1 each and fewer than {n} rows",
        f"{edit} + {accept}",
    )
    rows = np.split(named_rng(seed, "adult split").permutation(n), [edit, edit + accept])
    return dict(zip(("edit", "accept", "train"), rows, strict=True))


def adult_folder(data_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder that holds Adult's files: `data_dir` itself or `data_dir/adult`.

    Raises:
      ContractError: naming the first file that is missing.
    """
    root = pathlib.Path(data_dir).expanduser()
    folder = root if (root / FILES[0]).is_file() or not (root / "adult").is_dir() else root / "adult"
    for name in FILES:
        expect((folder / name).is_file(), "data_dir", f"UCI's Adult files, also {name}", f"{folder} without it")
    return folder


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns as arrays of text or float, and the labels. adult.test has a comment line and dots after labels."""
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), start=1):
            if not row or row[0].startswith("|"):
                continue
            expect(len(row) == len(COLUMNS) + 1, f"{path.name} line {number}", f"{len(COLUMNS) + 1} values", len(row))
            income = row[-1].rstrip(".")
            expect(income in ("<=50K", ">50K"), f"{path.name} line {number}", "<=50K or >50K at the end", repr(income))
            try:
                numbers = {name: float(row[COLUMNS.index(name)]) for name in NUMBERS}
            except ValueError as error:
                raise ContractError(f"`{path.name} line {number}`: expected a number, got {error}") from error
            rows.append((row, numbers, income == ">50K"))
    expect(len(rows) > 0, str(path), "at least one row", "none")
    table = {name: np.array([row[i] for row, _, _ in rows]) for i, name in enumerate(COLUMNS)}
    table |= {name: np.array([numbers[name] for _, numbers, _ in rows]) for name in NUMBERS}
    return table, np.array([rich for _, _, rich in rows], np.int32)


def _check_columns(what: str, names: Sequence[str], known: list[str]) -> None:
    listed = not isinstance(names, str) and len(set(names)) == len(names)
    expect(listed, what, "a list of column names, each once", describe(names))
    for name in names:
        check_choice(what, name, known)


def _rows(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in table.items()}


def _other_group(
    table: dict[str, np.ndarray],
    label: np.ndarray,
    train: dict[str, np.ndarray],
    label_train: np.ndarray,
    attribute: str,
    proxies: Sequence[str],
) -> dict[str, np.ndarray]:
    """The table with everybody in the other group, and the proxies as they are there."""
    other, own = dict(table), table[attribute] == ONE[attribute]
    other[attribute] = np.where(own, ZERO[attribute], ONE[attribute])
    for name in proxies:
        for value, counterpart in COUNTERPARTS.get((attribute, name), {}).items():
            other[name] = np.where(table[name] == value, counterpart, other[name])
    matched = [name for name in proxies if (attribute, name) not in COUNTERPARTS]
    if matched:
        # The people who seek a partner come first, the train split, in which they seek, after them.
        together = {name: np.concatenate([other[name], train[name]]) for name in table}
        bits = []
        for name in COLUMNS:
            if name in NUMBERS:
                bits.append(ordered(together[name], np.unique(np.quantile(train[name], np.arange(1, 10) / 10))))
            elif name not in (*UNUSED, *matched, attribute):
                bits.append(one_hot(together[name]))
        group = np.concatenate([own, train[attribute] == ONE[attribute]]).astype(np.int32)
        n = len(label)
        found = nearest_partners(
            np.concatenate(bits, axis=1),
            np.concatenate([label, label_train]),
            group,
            rows=np.arange(n),
            partners=np.arange(n, len(group)),
        )
        for name in matched:
            other[name] = together[name][found.partner]
    return other


def _encode(
    table: dict[str, np.ndarray], fit: dict[str, np.ndarray], attribute: str, without: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """x `[n d]` float32 and the names of its columns; means, deviations and categories come from `fit`."""
    columns, names = [], []
    for name in COLUMNS:
        values, known = table[name], fit[name]
        if name in UNUSED or name in without:
            continue
        if name == attribute:
            columns.append(values == ONE[name])
            names.append(name)
        elif name in NUMBERS:
            if name in LOG_SCALED:
                values, known = np.log1p(values), np.log1p(known)
            spread = known.std()
            columns.append((values - known.mean()) / (spread if spread > 0 else 1.0))
            names.append(name)
        else:
            for category in np.unique(known):
                columns.append(values == category)
                names.append(f"{name}={'missing' if category == '?' else category}")
    return np.stack(columns, axis=1).astype(np.float32), names
