"""Tables of clips, CSV, JSON lines and Parquet, as rows; read as they come, so that their size does not matter."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from typing import IO, Any

from data_prep.ingest.rows import REQUIRED, Row, columns
from data_prep.ingest.storage import Storage
from data_prep.records import InputError


def read_csv(storage: Storage, place: str) -> Iterator[Row]:
    """Every row that is not blank. Captions of UltraVideo exceed csv's field limit, which is global: put back.

    Raises:
        InputError: it is no CSV in UTF-8, a column is missing, or a row has more or fewer cells than the header.
    """
    limit = csv.field_size_limit(sys.maxsize)
    line = 0
    try:
        with _text(storage, place) as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if not header:
                raise InputError(f"manifest {place} is empty; expected a header with {', '.join(REQUIRED)}")
            places = columns(f"manifest {place}, line 1", header, tuple(REQUIRED))
            line = reader.line_num + 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _csv_row(place, line, cells, header, places)
                line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"manifest {place}, line {line}: {error}; not a well-formed CSV") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(place, error, "CSV UTF-8") from error
    finally:
        csv.field_size_limit(limit)


def _csv_row(place: str, line: int, cells: list[str], header: list[str], places: dict[str, int]) -> Row:
    where = f"{place}, line {line}"
    if len(cells) != len(header):
        raise InputError(
            f"manifest {where}: {len(cells)} cells where the header has {len(header)}; quote cells that "
            "contain commas"
        )
    texts = {column: cells[at] for column, at in places.items()}
    return Row(where, texts, {column: header[at] for column, at in places.items()})


def read_jsonl(storage: Storage, place: str) -> Iterator[Row]:
    """One object per line, by the names that a CSV's header would have.

    Raises:
        InputError: a line is no JSON object, or lacks a column.
    """
    try:
        with _text(storage, place) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield Row.of(f"{place}, line {number}", json_object(f"{place}, line {number}", line))
    except UnicodeDecodeError as error:
        raise _not_utf8(place, error, "UTF-8") from error


def json_object(where: str, text: str) -> dict[str, Any]:
    """An object from JSON; raises InputError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); an object is wanted") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON {type(value).__name__}; an object with names and values is wanted")
    return value


def read_parquet(storage: Storage, place: str) -> Iterator[Row]:
    """One row of the table after the other, of the columns that mean something here.

    Raises:
        InputError: it is no Parquet, or a column is missing.
    """
    import pyarrow
    import pyarrow.parquet

    with storage.open(place) as stream:
        try:
            table = pyarrow.parquet.ParquetFile(stream)
            names = table.schema_arrow.names
            wanted = None
            if "captions" not in names:  # a struct of them is taken apart row by row
                wanted = [names[at] for at in columns(f"manifest {place}", names, tuple(REQUIRED)).values()]
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=wanted):
                for values in batch.to_pylist():
                    number += 1
                    yield Row.of(f"{place}, row {number}", values)
        except pyarrow.ArrowInvalid as error:
            raise InputError(
                f"manifest {place}: not a whole Parquet file ({error}); write it again"
            ) from error


def _text(storage: Storage, place: str) -> IO[str]:
    return io.TextIOWrapper(storage.open(place), encoding="utf-8-sig", newline="")


def _not_utf8(place: str, error: UnicodeDecodeError, wanted: str) -> InputError:
    return InputError(f"manifest {place} is not UTF-8 text ({error.reason}); save it as {wanted}")


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}
"""By the ending of a table's name."""
