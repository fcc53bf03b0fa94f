"""The rendered leaderboard: a golden page, the same bytes everywhere, and nothing made up."""

import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.bench.leaderboard.made import example, failed, illness, row, write
from tsattn.bench.leaderboard.cells import Board
from tsattn.bench.leaderboard.failures import failures
from tsattn.bench.leaderboard.places import Places
from tsattn.bench.leaderboard.published import ACTIVATIONS, DATASETS, MODELS
from tsattn.bench.leaderboard.render import MARKER, content_of, html, markdown
from tsattn.cli import main
from tsattn.errors import DataError

UNTRAINED = {"value_activation": "", "seed": 0, "checkpoint_rule": ""}
GOLDEN = Path(__file__).with_name("golden.md")
REASON = """\
- {dataset: traffic, reason: no data here}
- {dataset: weather, model: transformer, reason: too slow}
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = write(tmp_path / "results", example())
    (folder / "not-run.yaml").write_text(REASON, encoding="utf-8")
    return folder


class Page(HTMLParser):
    """Checks that elements close in order, and collects what the page refers to."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "xlink:href")
        ]
        for name, value in attrs:
            if name == "data-sort":
                float(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def line(text: str, heading: str, start: str) -> list[str]:
    """Return the cells of a line of the first table below a heading."""
    below = text.split(f"\n{heading}\n", 1)[1]
    found = next(part for part in below.splitlines() if part.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split(" | ")]


def test_markdown_is_the_golden_page(results: Path) -> None:
    """After a wanted change: look at the page, then replace the golden file by it."""
    assert markdown(content_of(results)) == GOLDEN.read_text(encoding="utf-8")


def test_cells_hold_the_numbers_that_were_worked_out_by_hand(results: Path) -> None:
    text = markdown(content_of(results))
    tanh = line(text, "### Illness: PatchTST", "Tanh")
    # 1.40 1.31 1.20: mean 1.3033, deviation 0.1002; the paper 1.447; as published .8 times ours
    assert tanh[:5] == ["Tanh", "**1.3033 ± 0.1002**", "3", "1.447", "−0.144"]
    assert tanh[5:7] == ["1.0427 ± 0.0801", "−0.404"]
    # minus identity: -.10 -.09 -.10: mean -.09667, t(2) 4.3027 times .0057735 / sqrt 3 = .01434
    assert tanh[8] == "−0.0967 [−0.1110, −0.0823]"
    assert tanh[10].strip() == "supported"
    gelu = line(text, "### Illness: PatchTST", "GELU")
    assert gelu[1] == "1.4400 ± 0.1442"
    identity = line(text, "### Illness: PatchTST", "Linear (identity)")
    assert identity[1] == "<ins>1.4000 ± 0.1000</ins>"
    assert line(text, "### Illness: PatchTST", "SiLU")[1] == "1 failed"
    assert line(text, "### Illness: PatchTST", "ReLU")[1] == ""  # another configuration


def test_overview_has_ours_the_papers_and_the_difference_side_by_side(results: Path) -> None:
    text = markdown(content_of(results))
    row_of_tanh = next(part for part in text.splitlines() if part.startswith("| PatchTST | Tanh |"))
    cells = [cell.strip() for cell in row_of_tanh.strip("|").split(" | ")]
    assert cells[2:5] == ["", "0.187", ""]
    assert cells[11:14] == ["**1.303 ± 0.100 (3)**", "1.447", "−0.144"]


def test_network_that_no_floor_loses_to_says_so(results: Path) -> None:
    sentence = "None of these is better than a forecast that needs no training: "
    assert sentence not in markdown(content_of(results))
    write(results, [row(model="window_mean", test_mse=1.25, **UNTRAINED)])
    text = markdown(content_of(results))
    assert f"{sentence}mean of the window has 1.250, the best of them 1.303." in text
    assert f"{sentence}mean of the window has 1.250, the best of them 4.000." in text


def test_peer_of_another_protocol_is_named_so_and_drawn_nowhere(results: Path) -> None:
    write(results, [row(model="dlinear", protocol="mine", test_mse=1.35, **UNTRAINED)])
    text = markdown(content_of(results))
    assert line(text, "## Illness", "DLinear, protocol mine")[2] == "1.3500"
    assert "DLinear 1.350" not in html(content_of(results))


def test_empty_cells_say_why_and_how_to_fill_them(results: Path) -> None:
    text = markdown(content_of(results))
    grid = "tsattn bench run --grid configs/bench/table2.yaml --only dataset="
    assert (
        "- PatchTST: all activations: no data here. To fill them: `tsattn data fetch traffic`, "
        f"`{grid}traffic,model=patchtst`"
    ) in text
    assert "- Transformer: all activations: too slow." in text
    assert (
        f"- PatchTST: ReLU, Sigmoid: not run yet. To fill them: `{grid}illness,model=patchtst`"
        in text
    )


def test_failed_run_is_shown_with_its_error_and_breaks_no_table(results: Path) -> None:
    text = markdown(content_of(results))
    assert "- Illness, PatchTST, SiLU, seed 2021: `loss | NaN 'x'`" in text
    again = "--only model=patchtst,dataset=illness,activation=silu,seed=2021 --retry-failed"
    command = f"tsattn bench run --grid configs/bench/table2.yaml {again}"
    assert f"To run it again: `{command}`" in text
    page = parsed(html(content_of(results)))
    assert "loss | NaN `x`" in page.text
    assert command in page.text


def test_failed_peer_is_run_again_by_the_grid_of_peers() -> None:
    peer = failed(model="dlinear", dataset="etth2", value_activation="")
    (found,) = failures(Board([peer]), Places())
    assert found.command == (
        "tsattn bench run --grid configs/bench/peers.yaml --only model=dlinear,dataset=etth2,"
        f"seed={peer.seed} --retry-failed"
    )


def test_commands_and_links_are_those_of_where_rows_and_page_lie(tmp_path: Path) -> None:
    places = Places(Path("results/moe"), Path("docs/board.md"))
    assert places.run("moe", "linear_4") == (
        "tsattn bench run --grid configs/bench/moe_illness.yaml --results results/moe"
    )
    assert Places().run("mine", "patchtst") == "tsattn bench run --grid GRID.yaml"
    assert places.run("mine", "x").endswith("GRID.yaml --results results/moe")
    text = markdown(content_of(write(tmp_path / "results", [row()]), places))
    assert "[results](../results/moe)" in text
    assert "[board.html](board.html)" in text
    assert "](../docs/design" not in text
    assert "](design/0003-protocol.md)" in text


@pytest.mark.parametrize("changes", [{"protocol": "mine"}, {"horizon": 24}])
def test_runs_that_do_not_repeat_table_2_are_not_judged_by_it(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    rows = [
        row(value_activation=name, seed=seed, test_mse=1.0 + seed / 1e5, **changes)
        for name in ("identity", "tanh")
        for seed in (2021, 2022)
    ]
    content = content_of(write(tmp_path / "results", rows))
    text = markdown(content)
    title = "PatchTST" + (", protocol mine" if "protocol" in changes else "")
    assert line(text, f"### Illness: {title}", "Tanh")[3:5] == ["", ""]
    below = text.split(f"### Illness: {title}")[1].split("Floors")[0]
    assert "the paper has" not in below
    html(content)


def test_cells_of_candidate_b_are_missed_on_illness_alone(tmp_path: Path) -> None:
    text = markdown(content_of(write(tmp_path / "results", [row()])))
    command = "tsattn bench run --grid configs/bench/table2_b.yaml --only dataset=illness,"
    assert text.count("- Transformer, protocol table2_b: all activations: not run yet.") == 1
    assert f"`{command}model=transformer`" in text


def test_every_line_of_a_table_has_as_many_cells_as_its_title(results: Path) -> None:
    text = markdown(content_of(results))
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) >= 10
    for table in tables:
        lines = table.splitlines()
        widths = {len(re.findall(r"(?<!\\)\|", part)) for part in lines}
        assert len(widths) == 1, lines[0]
        assert set(lines[1]) <= set("|-:")


def test_page_is_whole_self_contained_and_sortable(results: Path) -> None:
    text = html(content_of(results))
    page = parsed(text)
    assert page.counts["script"] == page.counts["style"] == 1
    assert all(link.startswith("#") for link in page.links)
    assert "http" not in re.sub(r"https?://www\.w3\.org/\S*", "", text)
    assert page.counts["th"] == page.counts["button"]
    assert page.counts["svg"] >= 4
    for strange in ("None", "nan", "Undefined"):
        assert strange not in " ".join(page.text)


def test_both_say_the_same_numbers(results: Path) -> None:
    content = content_of(results)
    page = " ".join(parsed(html(content)).text)
    for number in re.findall(r"\d\.\d{3}(?: ± \d\.\d{3})?", markdown(content)):
        assert number in page, number


def test_rendering_is_the_same_bytes_in_another_process_and_order(
    results: Path, tmp_path: Path
) -> None:
    again = write(tmp_path / "again", example()[::-1])
    (again / "not-run.yaml").write_text(REASON, encoding="utf-8")
    script = "import sys; from tsattn.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "leaderboard", "--results", "again", "--out", "board.md"],
        cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = content_of(results, Places(Path("again"), Path("board.md")))
    assert (tmp_path / "board.md").read_bytes() == markdown(content).encode()
    assert (tmp_path / "board.html").read_bytes() == html(content).encode()


def test_empty_results_render_to_a_table_of_the_papers_figures(tmp_path: Path) -> None:
    content = content_of(write(tmp_path / "results", []))
    text = markdown(content)
    assert "No two activations have been run" in text
    assert text.count("not run yet") == 16 + 1 + 8  # Table 2, candidate B, what stands beside
    assert "| PatchTST | Tanh |  | 0.187 |  |" in text
    parsed(html(content))


def test_dataset_that_the_paper_does_not_have_gets_a_section_without_papers_figures(
    tmp_path: Path,
) -> None:
    rows = [
        row(dataset="own", value_activation=name, test_mse=0.5) for name in ("identity", "tanh")
    ]
    text = markdown(content_of(write(tmp_path / "results", rows)))
    assert line(text, "### own: PatchTST", "Tanh")[3:5] == ["", ""]


def test_only_failed_runs_render(tmp_path: Path) -> None:
    content = content_of(write(tmp_path / "results", [failed(), failed(seed=2022)]))
    assert "2 failed" in markdown(content)
    parsed(html(content))


@pytest.mark.parametrize(
    "text", ["a: b: c", "- reason: only", "- {dataset: x, reason: y, who: z}", "7"]
)
def test_reasons_that_cannot_be_read_are_named(results: Path, text: str) -> None:
    (results / "not-run.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"not-run\.yaml"):
        content_of(results)


def test_command_writes_both_checks_them_and_replaces_nothing_foreign(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "--check"]) == 1
    assert "leaderboard.md is not there" in capsys.readouterr().out
    assert main(["leaderboard"]) == 0
    assert main(["leaderboard", "--check"]) == 0
    assert "leaderboard.md, leaderboard.html: up to date" in capsys.readouterr().out
    assert MARKER in Path("leaderboard.md").read_text(encoding="utf-8").splitlines()[0]
    write(results, [row(dataset="ettm1")])
    capsys.readouterr()
    assert main(["leaderboard", "--check"]) == 1
    assert "leaderboard.html differs from a fresh rendering" in capsys.readouterr().out
    assert main(["leaderboard"]) == 0
    Path("leaderboard.html").write_text("mine", encoding="utf-8")
    assert main(["leaderboard"]) == 1
    assert "was not rendered by tsattn leaderboard" in capsys.readouterr().err
    assert Path("leaderboard.html").read_text(encoding="utf-8") == "mine"
    assert main(["leaderboard", "--overwrite"]) == 0


def test_unknown_word_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "verifyy"]) == 1
    assert "did you mean verify?" in capsys.readouterr().err


def test_full_table_renders_in_under_five_seconds(tmp_path: Path) -> None:
    rows = [
        row(model=model, dataset=dataset, value_activation=name, seed=seed, test_mse=seed / 4e3)
        for model in MODELS
        for dataset in DATASETS
        for name in ACTIVATIONS
        for seed in range(2021, 2026)
    ]
    folder = write(tmp_path / "results", rows)
    started = time.process_time()
    content = content_of(folder)
    assert markdown(content)
    assert html(content)
    assert time.process_time() - started < 5
    assert len(content.board.rows) == 480


def test_illness_example_is_ranked_over_its_three_seeds(tmp_path: Path) -> None:
    text = markdown(content_of(write(tmp_path / "results", illness())))
    assert "Ranked among 3 activations over what they share: seeds 2021, 2022, 2023." in text
