"""Which data are the same, wherever their file lies."""

from dataclasses import replace

from tsattn.data import load_panel
from tsattn.data.catalog import CATALOG
from tsattn.tune.identity import data_of


def test_data_are_the_bytes_of_their_file_and_what_they_are_read_as() -> None:
    panel = load_panel("illness")
    for known in CATALOG["illness"].sha256.values():  # line ends alone differ
        assert data_of(replace(panel, sha256=known)) == "illness"
    assert data_of(replace(panel, sha256="aa")) == "illness with sha256 aa"
    assert data_of(replace(panel, sha256="aa", info=None)) == "sha256 aa"
