"""CSV files of users, with or without a byte order mark, quotes and blanks; damaged ones are refused in one line."""

import csv
from pathlib import Path
from typing import NamedTuple

from jaxdebias.contracts import expect


class Record(NamedTuple):
    line: int
    """Of the file, from 1; the last one of a record that goes over several."""
    cells: dict[str, str]
    """Column -> text without blanks around it, "" where there is none."""


def read_csv(path: Path) -> tuple[list[str], list[Record]]:
    """The header, and the records of a UTF-8 file.

    Raises:
      ContractError: bytes that are no UTF-8, or what no CSV reader takes, with the line; two columns of one name; a
        record with more cells than the header.
    """
    header, records, reader = [], [], None
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = list(reader.fieldnames or [])
            for record in reader:
                where = f"{path.name} line {reader.line_num}"
                expect(None not in record, where, f"{len(header)} cells", "more")
                records.append(Record(reader.line_num, {name: (text or "").strip() for name, text in record.items()}))
    except UnicodeDecodeError as error:
        expect(False, path.name, "text in UTF-8", f"byte {error.object[error.start]:#04x}")
    except csv.Error as error:
        expect(False, f"{path.name} line {reader.line_num if reader else 1}", "a line of CSV", error)
    expect(len(set(header)) == len(header), path.name, "columns with different names", ", ".join(header))
    return header, records
