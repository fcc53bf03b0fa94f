"""The frozen table of benchmark datasets: shape, step, hashes, borders, licence and source.

Facts, not code: `tsattn.data.load` finds and reads the files, `tsattn.data.fetch` downloads them
and `tsattn.data.verify` compares a file on disk with its row here.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tsattn.errors import DataError

_MIRROR = (
    "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/"
    "2b66e59ee19dac8f6f19fb5d4997f289fdfea357"
)
_ETT_SOURCE = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/"
    "1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small"
)
_ETT_HEADER = ("date", "HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")

MINUTE = 60
HOUR = 3600
DAY = 86_400


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset of the catalog.

    Attributes:
        name: Name that ``--data.dataset`` takes, in any case.
        filename: Name of the file on disk.
        rows: Data rows, the header not counted.
        channels: Columns beside the time column.
        step_seconds: Nominal distance of two rows, in seconds.
        start: First timestamp, ISO 8601, or None where it is not on record.
        end: Last timestamp, likewise.
        sha256: Known hashes of the whole file, by byte variant (``lf`` or ``crlf`` line ends).
        size_bytes: Size of the whole file, by the same variants.
        licence: Licence as the source states it.
        source: Who made the data, and where it comes from.
        urls: Addresses with a pinned revision, in the order in which to try them.
        borders: Row ends of train, validation and test, or None for shares of 70/10/20.
        header: Expected header cells, time column first; None where only the ends are known.
        time_column: Name of the time column.
        target: Channel that single-output work forecasts; the last column.
        known_irregularities: What a strict check would stumble over, or an empty string.
        sentinel: A value that stands for "not measured" and is kept, or None.
        in_table2: Whether the paper's Table 2 has this dataset.
        embedded: Whether the file ships with the project.
    """

    name: str
    filename: str
    rows: int
    channels: int
    step_seconds: int
    start: str | None
    end: str | None
    sha256: Mapping[str, str]
    size_bytes: Mapping[str, int]
    licence: str
    source: str
    urls: tuple[str, ...]
    borders: tuple[int, int, int] | None = None
    header: tuple[str, ...] | None = None
    time_column: str = "date"
    target: str = "OT"
    known_irregularities: str = ""
    sentinel: float | None = None
    in_table2: bool = True
    embedded: bool = False

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return self.filename.removesuffix(".csv")

    def variant_of(self, sha256: str) -> str | None:
        """Return which known byte variant has this hash, or None."""
        return next((name for name, known in self.sha256.items() if known == sha256), None)


def _ett(name: str, minutes: int, sha256: str, size_bytes: int) -> DatasetInfo:
    per_hour = 60 // minutes
    return DatasetInfo(
        name=name,
        filename=f"{name}.csv",
        rows=17_420 * per_hour,
        channels=7,
        step_seconds=minutes * MINUTE,
        start="2016-07-01T00:00:00",
        end="2018-06-26T19:00:00" if minutes == 60 else "2018-06-26T19:45:00",
        sha256=MappingProxyType({"lf": sha256}),
        size_bytes=MappingProxyType({"lf": size_bytes}),
        licence="CC BY-ND 4.0",
        source="Electricity Transformer Temperature, Zhou et al. (ETDataset)",
        urls=(f"{_MIRROR}/ETT-small/{name}.csv", f"{_ETT_SOURCE}/{name}.csv"),
        borders=(8_640 * per_hour, 11_520 * per_hour, 14_400 * per_hour),
        header=_ETT_HEADER,
        embedded=name == "ETTh1",
    )


_DATASETS = (
    _ett("ETTh1", 60, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066", 2589657),
    _ett("ETTh2", 60, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b", 2417960),
    _ett("ETTm1", 15, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e", 10360719),
    _ett("ETTm2", 15, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd", 9677236),
    DatasetInfo(
        name="weather",
        filename="weather.csv",
        rows=52_696,
        channels=21,
        step_seconds=10 * MINUTE,
        start="2020-01-01T00:10:00",
        end="2021-01-01T00:00:00",
        sha256=MappingProxyType(
            {
                "crlf": "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
                "lf": "9b2b19b13e342d9c9b9c51620d42b4be232df7fba30e7f5c4968b7c79ab138ad",
            }
        ),
        size_bytes=MappingProxyType({"crlf": 7_235_425, "lf": 7_182_728}),
        licence="CC BY 4.0",
        source="Max Planck Institute for Biogeochemistry, Jena: weather station, 2020",
        urls=(f"{_MIRROR}/weather/weather.csv",),
        known_irregularities=(
            "one duplicate timestamp (2020-05-12 06:00) and one gap (2020-05-29 09:30 to 11:10); "
            "-9999 stands for 'not measured' in 'wv (m/s)' (1), 'max. PAR' (30) and 'OT' (50) and "
            "is part of the benchmark; three header cells hold undecodable characters"
        ),
        sentinel=-9999.0,
    ),
    DatasetInfo(
        name="traffic",
        filename="traffic.csv",
        rows=17_544,
        channels=862,
        step_seconds=HOUR,
        start=None,
        end=None,
        sha256=MappingProxyType(
            {"lf": "cb06463d56fa17d87f47027cd9389ceae82a69eddee51cdb61480e120dab0b16"}
        ),
        size_bytes=MappingProxyType({"lf": 136_478_119}),
        licence="no explicit licence",
        source="California Department of Transportation, PeMS: road occupancy rates",
        urls=(f"{_MIRROR}/traffic/traffic.csv",),
    ),
    DatasetInfo(
        name="electricity",
        filename="electricity.csv",
        rows=26_304,
        channels=321,
        step_seconds=HOUR,
        start=None,
        end=None,
        sha256=MappingProxyType(
            {"lf": "7e45845d54c5219bad0ae6bc1b5316cf8ff9cead5d33fa998a5a51c2e4a497ad"}
        ),
        size_bytes=MappingProxyType({"lf": 95_581_762}),
        licence="CC BY 4.0",
        source="UCI Machine Learning Repository 321, DOI 10.24432/C58C86: hourly consumption",
        urls=(f"{_MIRROR}/electricity/electricity.csv",),
    ),
    DatasetInfo(
        name="illness",
        filename="national_illness.csv",
        rows=966,
        channels=7,
        step_seconds=7 * DAY,
        start="2002-01-01T00:00:00",
        end="2020-06-30T00:00:00",
        sha256=MappingProxyType(
            {
                "crlf": "93601f64d2566dc796ca4305adad8b8560c2db1a1ff04543c3bd813a7263570a",
                "lf": "8594cecb98c6f2f9dc014eca11c4d5d1e38ad5ce6ed0592d4abe65b146fce395",
            }
        ),
        size_bytes=MappingProxyType({"crlf": 67_620, "lf": 66_653}),
        licence="US-government data",
        source="US Centers for Disease Control and Prevention, FluView: influenza-like illness",
        urls=(f"{_MIRROR}/illness/national_illness.csv",),
        header=(
            "date",
            "% WEIGHTED ILI",
            "%UNWEIGHTED ILI",
            "AGE 0-4",
            "AGE 5-24",
            "ILITOTAL",
            "NUM. OF PROVIDERS",
            "OT",
        ),
        embedded=True,
    ),
    DatasetInfo(
        name="exchange_rate",
        filename="exchange_rate.csv",
        rows=7_588,
        channels=8,
        step_seconds=DAY,
        start="1990-01-01T00:00:00",
        end="2010-10-10T00:00:00",
        sha256=MappingProxyType(
            {"crlf": "48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842"}
        ),
        size_bytes=MappingProxyType({"crlf": 637_800}),
        licence="none stated",
        source="Daily exchange rates of eight countries, Lai et al. (2018)",
        urls=(f"{_MIRROR}/exchange_rate/exchange_rate.csv",),
        header=("date", "0", "1", "2", "3", "4", "5", "6", "OT"),
        in_table2=False,
    ),
)

CATALOG: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _DATASETS})


def find(name: str) -> DatasetInfo | None:
    """Look a dataset up by its name or its file's stem, in any case.

    Args:
        name: Such as ``ETTh1``, ``etth1`` or ``national_illness``.

    Returns:
        The dataset, or None where the catalog has none of that name.
    """
    wanted = name.strip().casefold().replace("-", "_")
    for info in CATALOG.values():
        if wanted in (info.name.casefold(), info.stem.casefold()):
            return info
    return None


def find_by_sha256(sha256: str) -> DatasetInfo | None:
    """Return the dataset of which a known byte variant has this hash, or None."""
    return next((info for info in CATALOG.values() if info.variant_of(sha256)), None)


def nearest(name: str, *, among: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the catalog names that look most like ``name``, the best first."""
    names = tuple(CATALOG if among is None else among)
    folded = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=0.5)
    return tuple(folded[match] for match in close)


def require(name: str) -> DatasetInfo:
    """Look a dataset up as `find` does, and raise where there is none.

    Raises:
        DataError: The catalog has no such name; the nearest names are given.
    """
    info = find(name)
    if info is None:
        close = nearest(name)
        hint = f" (nearest: {', '.join(close)})" if close else ""
        raise DataError(f"unknown dataset {name!r}{hint}; the catalog has {', '.join(CATALOG)}")
    return info
