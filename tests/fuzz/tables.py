"""Ways in which a CSV file can be broken."""

import random
from collections.abc import Callable

Mutate = Callable[[bytes, random.Random], bytes]

CELLS = (
    "", " ", "NaN", "nan", "inf", "-inf", "Infinity", "NA", "null", "None", "-", "?", "n/a", "x",
    "1e308", "-1e308", "1e309", "1e999", "9" * 400, "1e-400", "0x1F", "1_000", "1,5", "1.234,5",
    "1,234.5", "--1", "+", ".", "e5", "1e", "١٢٣", "½", "１２", "²", "True", "false", "#REF!",
    "=1+1", '"', '""', "'", "\\N", "\t", "1 2", "1;2", "1e5e5", "\u200b1", "€5", "5%",
    "18446744073709551616", "-9223372036854775809", "0" * 300, "1." + "3" * 500, "NaT",
)  # fmt: skip
STAMPS = (
    "0000-00-00", "9999-12-31 23:00:00", "99999-01-01", "0001-01-01", "1677-09-21", "2262-04-12",
    "2020-02-30", "2020-13-01", "2020-01-01 24:00:00", "2020-01-01 25:61:61", "20200101", "1e9",
    "1577836800", "1577836800000", "-5", "0", "99999999", "100000000", "3.5", "2020-W05", "2020Q1",
    "2020-01", "2020", "01/02/2020", "13/13/2020", "31.12.2020", "yesterday", "NaT", "", " ",
    "2020-01-01T00:00:00Z", "2020-01-01 00:00:00+01:00", "2020-01-01 00:00:00+99:99",
    "2020-03-29 02:30:00", "2020-10-25 02:30:00", "2020-01-01 00:00:00.123456789",
    "١٤٤٢-٠١-٠١", "Jan 5 2020", "5 Jan", "2020-01-01 00:00:00 AM", "2020-01-01 12:00 pm", "inf",
    "-2020-01-01", "2020-06-30 23:59:60", "2020-01-01 00:00:00 Europe/Berlin", "１９９９-01-01",
)  # fmt: skip


def _lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")


def _row(lines: list[bytes], draw: random.Random) -> int:
    return draw.randrange(1, max(2, len(lines) - 1)) if len(lines) > 1 else 0


def _late_row(lines: list[bytes], draw: random.Random) -> int:
    """Return one of the last rows, which forecasts look at."""
    return max(0, len(lines) - 2 - draw.randrange(14))


def _with_cell(data: bytes, draw: random.Random, text: str, column: int | None) -> bytes:
    lines = _lines(data)
    row = (_late_row if draw.random() < 0.7 else _row)(lines, draw)
    cells = lines[row].split(b",")
    place = draw.randrange(len(cells)) if column is None else min(column, len(cells) - 1)
    cells[place] = text.encode()
    lines[row] = b",".join(cells)
    return b"\n".join(lines)


def flip_bytes(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 3, 30))):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def cut_front(data: bytes, draw: random.Random) -> bytes:
    return data[draw.randrange(len(data) + 1) :]


def insert_zero_bytes(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + bytes(draw.choice((1, 7, 5000))) + data[place:]


def odd_cell(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 4))):
        data = _with_cell(data, draw, draw.choice(CELLS), draw.randrange(1, 5))
    return data


def odd_stamp(data: bytes, draw: random.Random) -> bytes:
    header = _lines(data)[0].split(b",")
    time = next((i for i, name in enumerate(header) if name in (b"date", b"ds")), 0)
    for _ in range(draw.choice((1, 1, 4))):
        data = _with_cell(data, draw, draw.choice(STAMPS), time)
    return data


def all_stamps_odd(data: bytes, draw: random.Random) -> bytes:
    lines, stamp = _lines(data), draw.choice(STAMPS).encode()
    time = 1 if lines[0].startswith(b"unique_id") else 0
    for row in range(1, len(lines)):
        cells = lines[row].split(b",")
        if len(cells) > time:
            cells[time] = stamp
            lines[row] = b",".join(cells)
    return b"\n".join(lines)


def empty_column(data: bytes, draw: random.Random) -> bytes:
    lines, text = _lines(data), draw.choice(("", "NaN", "x", "inf", "0")).encode()
    column = draw.randrange(1, 4)
    for row in range(1, len(lines)):
        cells = lines[row].split(b",")
        if len(cells) > column:
            cells[column] = text
            lines[row] = b",".join(cells)
    return b"\n".join(lines)


def swap_delimiter(data: bytes, draw: random.Random) -> bytes:
    other = draw.choice((b";", b"\t", b"|", b":", b" ", b",,"))
    if draw.random() < 0.5:
        return data.replace(b",", other)
    lines = _lines(data)
    row = _row(lines, draw)
    lines[row] = lines[row].replace(b",", other)
    return b"\n".join(lines)


def ragged_rows(data: bytes, draw: random.Random) -> bytes:
    lines = _lines(data)
    row = _row(lines, draw)
    lines[row] = lines[row].rpartition(b",")[0] if draw.random() < 0.5 else lines[row] + b",1" * 7
    return b"\n".join(lines)


def mix_encodings(data: bytes, draw: random.Random) -> bytes:
    text = "Größe€ü"
    return draw.choice(
        (
            data.decode("utf-8", "replace").encode("utf-16"),
            data.decode("utf-8", "replace").encode("utf-16-le"),
            data.decode("utf-8", "replace").encode("utf-32"),
            b"\xff\xfe" + data,
            b"\xef\xbb\xbf\xef\xbb\xbf" + data,
            data.replace(b"a", text.encode("cp1252"), 1),
            data + text.encode("cp1252") + b"\n",
            data + text.encode("utf-16"),
        )
    )


def repeat_columns(data: bytes, draw: random.Random) -> bytes:
    times = draw.choice((1, 1, 300))
    column = draw.randrange(4)
    lines = [line.split(b",") for line in _lines(data)]
    return b"\n".join(b",".join(cells + cells[column : column + 1] * times) for cells in lines)


def rename_column(data: bytes, draw: random.Random) -> bytes:
    header, newline, body = data.partition(b"\n")
    names = header.split(b",")
    new = ("", " ", "x", "date", "y", "2020-01-01", "1", '"', "ä", "unique_id", "a" * 9999)
    names[draw.randrange(len(names))] = draw.choice(new).encode()
    return b",".join(names) + newline + body


def shuffle_columns(data: bytes, draw: random.Random) -> bytes:
    lines = [line.split(b",") for line in _lines(data)]
    order = list(range(len(lines[0])))
    draw.shuffle(order)
    return b"\n".join(
        b",".join(cells[i] for i in order) if len(cells) == len(order) else b",".join(cells)
        for cells in lines
    )


def shuffle_rows(data: bytes, draw: random.Random) -> bytes:
    header, *rows = _lines(data)
    draw.shuffle(rows)
    return b"\n".join([header, *rows])


def reverse_rows(data: bytes, draw: random.Random) -> bytes:
    header, *rows = _lines(data)
    return b"\n".join([header, *reversed(rows)])


def repeat_rows(data: bytes, draw: random.Random) -> bytes:
    lines = _lines(data)
    row = _late_row(lines, draw)
    return b"\n".join([*lines[:row], *[lines[row]] * draw.choice((2, 3, 200)), *lines[row + 1 :]])


def drop_rows(data: bytes, draw: random.Random) -> bytes:
    lines = _lines(data)
    row = _late_row(lines, draw)
    return b"\n".join([*lines[:row], *lines[row + draw.choice((1, 2, 20)) :]])


def few_rows(data: bytes, draw: random.Random) -> bytes:
    return b"\n".join(_lines(data)[: draw.randrange(1, 18)])


def mix_zones(data: bytes, draw: random.Random) -> bytes:
    zones = (b"+01:00", b"Z", b"-0530", b"", b" UTC", b"+02:00")
    lines = _lines(data)
    time = 1 if lines[0].startswith(b"unique_id") else 0
    alike = draw.choice((*zones, None))
    for row in range(1, len(lines)):
        cells = lines[row].split(b",")
        if len(cells) > time and cells[time]:
            zone = draw.choice(zones) if alike is None else alike
            cells[time] += zone
            lines[row] = b",".join(cells)
    return b"\n".join(lines)


def bomb_of_quotes(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data) + 1)
    bomb = draw.choice((b'"', b'"""', b'"' * 1001, b'"\n' * 500, b'"' + b"x," * 70_000, b'\\"'))
    return data[:place] + bomb + data[place:]


def long_line(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice((b"x" * 300_000, b"," * 100_000, b"1," * 50_000)) + b"\n"


def line_ends(data: bytes, draw: random.Random) -> bytes:
    return data.replace(
        b"\n", draw.choice((b"\r", b"\r\n", b"\n\n\n", b"\x0b", b"\r\r\n", b"\x85"))
    )


def repeat_header(data: bytes, draw: random.Random) -> bytes:
    lines = _lines(data)
    row = _row(lines, draw)
    return b"\n".join([*lines[:row], lines[0], *lines[row:]])


def without_header(data: bytes, draw: random.Random) -> bytes:
    return data.partition(b"\n")[2]


def german(data: bytes, draw: random.Random) -> bytes:
    return data.replace(b",", b";").replace(b".", b",")


def nothing_at_all(data: bytes, draw: random.Random) -> bytes:
    whole = (b"", b"\n", b" \n\t\n", b",,,\n,,,\n", b"date\n", b"\xff\xfe", b"\x00", data[:1])
    return draw.choice(whole)


def noise(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((1, 100, 5000)))


def magic(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"\x89HDF", b"%PDF", b"<html>")) + data


MUTATIONS: tuple[Mutate, ...] = (
    flip_bytes, truncate, cut_front, insert_zero_bytes, odd_cell, odd_cell, odd_stamp, odd_stamp,
    all_stamps_odd, empty_column, swap_delimiter, ragged_rows, mix_encodings, repeat_columns,
    rename_column, shuffle_columns, shuffle_rows, reverse_rows, repeat_rows, drop_rows, few_rows,
    mix_zones, bomb_of_quotes, long_line, line_ends, repeat_header, without_header, german,
    nothing_at_all, noise, magic,
)  # fmt: skip
