"""The rows of `results/<model>.csv`: one for each finished cell, validated, appended, never lost.

A file is read and checked whole before anything is added to it, and replaced in one step under a
lock, so that neither a kill nor a second writer leaves half a row. A failed cell has a row too;
when the cell is run again its next row supersedes that one. A row with scores is final.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from tsattn.errors import DataError, ExistsError
from tsattn.files import replacing

SCHEMA = 1
_LOCK_SECONDS = 120

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Borders = Annotated[str, Field(pattern=r"^(\d+:\d+(;\d+:\d+)*)?$")]


class Key(NamedTuple):
    """What makes a cell this cell and no other."""

    protocol: str
    model: str
    dataset: str
    value_activation: str
    seed: int
    config_hash: str

    @property
    def name(self) -> str:
        """The key as the name of a file: ``table2-patchtst-illness-tanh-2021-0123456789ab``."""
        return "-".join(str(part) for part in self if part != "")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Row:
    """One cell of the table, and what makes it trustworthy; the columns are in this order.

    Attributes:
        schema: version of these columns.
        protocol: what was done: ``table2``, ``table2_b``.
        model: ``patchtst``, ``transformer``, a peer or a floor.
        dataset: name of the dataset in the grid: ``illness``, ``etth1``.
        value_activation: of the attention; empty where the model has none.
        seed: of weights and of the order of the data; 0 where nothing is drawn.
        status: ``ok``, or ``failed`` with the reason in ``error`` and no scores.
        error: why it failed, in one line.
        config_hash: of everything that was set, seed and activation left out.
        recipe: the files it was made from.
        test_mse: over all test windows, horizon and channels, standardised.
        test_mae: likewise.
        test_mse_as_published: without the windows behind the last full batch of training size.
        test_mae_as_published: likewise.
        test_windows: windows scored.
        test_windows_dropped: windows not scored; always 0.
        windows_as_published: windows that published code scores.
        val_mse: over all validation windows, of the epoch that was chosen.
        best_epoch: the epoch that was chosen, from 1.
        epochs: epochs that training ran.
        max_epochs: epochs that it might have run.
        checkpoint_rule: how the epoch was chosen; empty where nothing was trained.
        data_sha256: of the data file.
        train_rows: rows of the training part, ``0:8640``; several series: joined by semicolons.
        val_rows: likewise.
        test_rows: likewise.
        scaler: what was fitted on which rows.
        context: steps that the model looks at.
        horizon: steps that it forecasts.
        parameters: number of trainable parameters.
        wall_seconds: of all epochs, validation included.
        peak_mib: largest resident memory of the process that finished the cell.
        device: the processor.
        devices: number of processes or accelerators.
        threads: threads of torch.
        precision: as the trainer names it.
        attention: who computed the attention.
        tsattn: version; likewise torch, lightning and python.
        torch: version.
        lightning: version.
        python: version.
        commit: of the checkout that it ran from.
        checkpoint: file in ``checkpoints/<model>/`` beside the results; empty where none is kept.
        checkpoint_sha256: of the best weights as safetensors, kept or not.
        finished: when, in UTC.
    """

    schema: Literal[1]
    protocol: Name
    model: Name
    dataset: Name
    value_activation: Annotated[str, Field(pattern=r"^\w*$")]
    seed: Count
    status: Literal["ok", "failed"]
    error: Line
    config_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    recipe: Line
    test_mse: Number | None
    test_mae: Number | None
    test_mse_as_published: Number | None
    test_mae_as_published: Number | None
    test_windows: Count | None
    test_windows_dropped: Annotated[int, Field(ge=0, le=0)] | None
    windows_as_published: Count | None
    val_mse: Number | None
    best_epoch: Annotated[int, Field(ge=1)] | None
    epochs: Count | None
    max_epochs: Count | None
    checkpoint_rule: Line
    data_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    train_rows: Borders
    val_rows: Borders
    test_rows: Borders
    scaler: Line
    context: Count | None
    horizon: Count | None
    parameters: Count | None
    wall_seconds: Number | None
    peak_mib: Number | None
    device: Line
    devices: Count | None
    threads: Count | None
    precision: Line
    attention: Line
    tsattn: Line
    torch: Line
    lightning: Line
    python: Line
    commit: Line
    checkpoint: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+\.safetensors)?$")]
    checkpoint_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    finished: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]

    @model_validator(mode="after")
    def _has_what_its_status_promises(self) -> "Row":
        """Refuse scores without their circumstances, and failures without a reason."""
        if self.status == "failed":
            if not self.error:
                raise ValueError("a failed row needs its error")
            if self.test_mse is not None:
                raise ValueError("a failed row has no scores")
            return self
        if self.error:
            raise ValueError("a row with status ok has no error")
        lacking = [name for name in _REQUIRED if getattr(self, name) in (None, "")]
        if lacking:
            raise ValueError(f"a row with status ok needs {', '.join(lacking)}")
        return self

    @property
    def key(self) -> Key:
        """What makes this cell this cell."""
        return Key(**{name: getattr(self, name) for name in Key._fields})


_REQUIRED = (
    "test_mse", "test_mae", "test_windows", "test_windows_dropped", "windows_as_published",
    "epochs", "data_sha256", "train_rows", "val_rows", "test_rows", "context", "horizon",
    "parameters", "device", "devices", "threads", "precision", "tsattn", "torch", "python",
)  # fmt: skip
COLUMNS = tuple(field.name for field in fields(Row))  # pyright: ignore[reportArgumentType]


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows that stand, in the order of the file: one for each key, the last.

    Args:
        path: a file of results; one that does not exist has no rows.

    Raises:
        DataError: a damaged row, a key twice, or a file of a newer tsattn; with file and line.
    """
    standing: dict[Key, Row] = {}
    for row in _checked(Path(path)):
        standing.pop(row.key, None)
        standing[row.key] = row
    return list(standing.values())


def validate(path: str | Path) -> None:
    """Check every row of a file.

    Raises:
        DataError: as `read_rows`, or there is no such file.
    """
    if not Path(path).is_file():
        raise DataError(f"no results at {path}")
    for _ in _checked(Path(path)):
        pass


def append_row(path: str | Path, row: Row, *, complete: Callable[[Row], Row] | None = None) -> Row:
    """Add a row, all of it or nothing, whoever else writes to the file, and return it.

    Args:
        path: the file.
        row: the row.
        complete: called once it is certain that the row will be added, with nobody else at the
            file; returns the row to add.

    Raises:
        DataError: the file is damaged or of a newer tsattn, or somebody keeps it locked; it is left
            as it is.
        ExistsError: the file has a row with scores for this key.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    try:
        with FileLock(lock, timeout=_LOCK_SECONDS):
            return _append(path, row, complete)
    except Timeout as error:
        raise DataError(
            f"{path} has been locked by another process for {_LOCK_SECONDS} s ({lock}); the row of "
            f"{row.key.name} was not written: end that process and run the command again"
        ) from error


def _append(path: Path, row: Row, complete: Callable[[Row], Row] | None) -> Row:
    there = {known.key: known for known in read_rows(path)}
    if row.key in there and there[row.key].status == "ok":
        raise ExistsError(f"{path} has a row for {row.key.name} already, with scores; it stays")
    if complete is not None:
        row = complete(row)
    before = path.read_bytes() if path.is_file() else _line(COLUMNS)
    with replacing(path, durable=True) as file:
        file.write_bytes(before + _line(_text(value) for value in asdict(row).values()))  # pyright: ignore
    return row


def _text(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _line(cells: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _checked(path: Path) -> Iterator[Row]:
    """Yield all rows of a file, superseded ones included."""
    if not path.is_file():
        return
    text = _decoded(path)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        cells = [(lines.line_num, row) for row in lines]
    except csv.Error as error:
        raise _damaged(path, lines.line_num, str(error)) from error
    _refuse_newer(path, cells)
    if not cells or tuple(cells[0][1]) != COLUMNS:
        raise _damaged(path, 1, f"expected the header {','.join(COLUMNS)}")
    finished: dict[Key, int] = {}
    for number, row in cells[1:]:
        one = _row(path, number, row)
        if one.key in finished:
            earlier = finished[one.key]
            raise _damaged(path, number, f"{one.key.name} has its scores in line {earlier} already")
        if one.status == "ok":
            finished[one.key] = number
        yield one


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _damaged(path, line, "bytes that are not UTF-8") from error
    if not text.endswith("\n"):
        raise _damaged(path, text.count("\n") + 1, "the line is cut short")
    return text


def _refuse_newer(path: Path, cells: list[tuple[int, list[str]]]) -> None:
    if not cells or cells[0][1][:1] != ["schema"]:
        return
    for number, row in cells[1:]:
        if row and row[0].isdecimal() and int(row[0]) > SCHEMA:
            raise DataError(
                f"{path}, line {number}: written by a newer tsattn (schema {row[0]}, this one "
                f"knows {SCHEMA}); upgrade tsattn, or choose another --results; nothing was changed"
            )


def _row(path: Path, number: int, cells: list[str]) -> Row:
    if len(cells) != len(COLUMNS):
        raise _damaged(path, number, f"{len(cells)} cells, expected {len(COLUMNS)}")
    given: dict[str, Any] = {
        name: None if not cell and name in _NULLABLE else cell
        for name, cell in zip(COLUMNS, cells, strict=True)
    }
    given["schema"] = int(cells[0]) if cells[0].isdecimal() else cells[0]
    try:
        return Row(**given)
    except ValidationError as error:
        raise _damaged(path, number, "; ".join(map(_complaint, error.errors()))) from error


_NULLABLE = frozenset(
    field.name
    for field in fields(Row)  # pyright: ignore[reportArgumentType]
    if type(None) in get_args(field.type)
)


def _complaint(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"][:1])
    return f"{place} {error['input']!r}: {error['msg']}" if place else str(error["msg"])


def _damaged(path: Path, line: int, why: str) -> DataError:
    return DataError(
        f"{path}, line {line}: {why}; mend the line, or take the file back from version control; "
        "nothing was changed"
    )
