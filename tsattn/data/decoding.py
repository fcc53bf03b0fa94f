"""From the bytes of a file to text, or to the reason why they are none."""

from tsattn.errors import DataError

_MAGIC = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx); export the sheet as CSV",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"PAR1": "a Parquet file; convert it to CSV",
    b"\x89HDF": "an HDF5 file; convert it to CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls); export the sheet as CSV",
}


def decode(data: bytes, label: str) -> tuple[str, list[str]]:
    """Decode the bytes of a text file and unify its line ends.

    UTF-8 is expected, with or without a mark; UTF-16 with a mark is read, and so is a header in
    Windows-1252 above data in plain ASCII.

    Args:
        data: The file's bytes.
        label: What messages call the file.

    Returns:
        The text, and notes on what was recognised.

    Raises:
        DataError: The file is binary or its encoding is unknown.
    """
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(f"{label} is not a text file but {kind}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return _unify(data.decode("utf-16")), ["encoding: UTF-16"]
        except UnicodeDecodeError:
            raise DataError(f"{label} is not readable UTF-16; save it as UTF-8") from None
    if b"\x00" in data:
        raise DataError(
            f"{label} is a binary file (zero byte at offset {data.index(bytes(1))}); expected CSV "
            "text"
        )
    try:
        return _unify(data.decode("utf-8-sig")), []
    except UnicodeDecodeError as error:
        header, newline, body = data.partition(b"\n")
        if newline and body.isascii():  # only names are concerned, no datum
            decoded = header.decode("cp1252", errors="replace")
            text = f"{decoded}\n{body.decode('ascii')}"
            return _unify(text), ["the header is not UTF-8; its names were read as Windows-1252"]
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{label} is not UTF-8 text (byte 0x{data[error.start]:02x} in line {line}); save it "
            "as UTF-8"
        ) from None


def _unify(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
