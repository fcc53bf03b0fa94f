"""``tsattn moe report``: what the page counts, what it holds, and what it refuses."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tests.training.tiny import CONTEXT, HORIZON, TEST_WINDOWS, contents, fit
from tsattn.cli import main
from tsattn.data import load_panel
from tsattn.models import EncoderDecoderTransformer, PatchTST
from tsattn.nn.moe import FeedForwardExperts, LinearExperts, MixedExperts, MoE, ZeroExperts
from tsattn.training import ForecastData, load_network, served
from tsattn.training.folder import RunFolder
from tsattn.training.routing_page import finished_run
from tsattn.training.routing_sections import epoch_sections, served_sections
from tsattn.training.routing_table import Row, read_rows
from tsattn.training.served import calendar_of, expert_names, serve_test
from tsattn.training.served_pictures import departures

Write = Callable[..., Path]
LAYER = "layers.0.feedforward"
CHANNELS, PATCHES = 7, 6


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the tiny recipe with mixtures; look, but change nothing."""
    folder = RunFolder(tmp_path_factory.mktemp("mixed") / "run")
    feedforward = "--model.network.feedforward"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)  # its pictures take long
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "TSATTN_RUN_DIR"):
            patch.delenv(name, raising=False)
        words = [feedforward, "MoE", f"{feedforward}.num_experts", "4"]
        fit(folder.path, *words, f"{feedforward}.zero_experts", 1, "--trainer.max_epochs", 3)
    return folder


@pytest.fixture
def copied(mixed: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of that run, to be changed."""
    shutil.copytree(mixed.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


class Page(HTMLParser):
    """The parts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] for name in ("href", "src") if name in found]
        if tag == "img":
            self.pictures.append(found)
        elif tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data.strip()}"
        if self._open and self._open[-1] == "h2":
            self.titles.append(data)


def page_of(folder: RunFolder) -> Page:
    return Page(folder.routing_page.read_text(encoding="utf-8"))


def test_a_page_has_the_facts_and_a_picture_under_each_sentence(
    copied: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert main(["moe", "report", str(copied.path)]) == 0
    assert f"page: {copied.routing_page}" in capsys.readouterr().out
    page, result = page_of(copied), json.loads(copied.result.read_text())
    assert page.titles == [
        "On the test windows",
        "Load over the epochs",
        "Entropy over the epochs",
        "Changes from epoch to epoch",
        "Whom the experts serve: week of the year",
        "Whom the experts serve: channel",
    ]
    assert [picture["alt"] for picture in page.pictures] == page.titles[1:]
    assert all(link and link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert len(page.pictures) == len(page.links)
    test = result["test"]
    for fact in (
        f"MSE {test['mse']:.4f}, MAE {test['mae']:.4f} over {TEST_WINDOWS} windows",
        f"3 epochs, the best one {result['best_epoch']}",
        "1 layers of 4 experts, 2 for each token; LinearGate",
        f"sha256 {result['dataset']['sha256'][:8]}",
        f"{100 * result['moe'][0]['change_rate']:.1f} %",
        f"all {TEST_WINDOWS} test windows",
    ):
        assert fact in page.text, fact
    before = copied.routing_page.read_bytes()
    assert main(["moe", "report", str(copied.path), "--overwrite"]) == 0
    assert copied.routing_page.read_bytes() == before


def test_the_page_goes_where_it_is_wanted(mixed: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    before = contents(mixed.path)
    assert main(["moe", "report", str(mixed.path), "--out", str(tmp_path / "a" / "b.html")]) == 0
    assert contents(tmp_path).keys() == {"a/b.html"}
    assert contents(mixed.path) == before


def test_slots_are_counted_at_the_middle_of_their_patch_and_at_its_channel(
    mixed: RunFolder,
) -> None:
    data = finished_run(mixed).data
    network = load_network(mixed.best)
    (mixture,) = [module for module in network.modules() if isinstance(module, MoE)]
    experts: list[torch.Tensor] = []
    mixture.register_forward_hook(lambda module, x, fed: experts.append(fed.routing.experts_NK))
    with torch.inference_mode():
        network(data.prepared.test[:].past_BTC)
    chosen = experts[0].view(TEST_WINDOWS, CHANNELS, PATCHES, 2).tolist()
    times = load_panel("illness").series[0].times
    weeks, channels = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for window in range(TEST_WINDOWS):
        start = 773 - CONTEXT + window
        for channel in range(CHANNELS):
            for patch in range(PATCHES):
                middle = times[start + min(6 * patch + 6, CONTEXT - 1)]
                for expert in chosen[window][channel][patch]:
                    weeks[middle.isocalendar().week - 1, expert] += 1
                    channels[channel, expert] += 1
    test = serve_test(load_network(mixed.best), data)
    assert test.windows == TEST_WINDOWS
    (part,) = test.layers
    assert part.layer == LAYER
    assert part.experts == ("expert 0", "expert 1", "expert 2", "expert 3 (zero)")
    assert part.calendar_VE is not None
    assert part.channels_CE is not None
    for found, expected in ((part.calendar_VE, weeks), (part.channels_CE, channels)):
        stored = {(v, e): int(n) for v, row in enumerate(found) for e, n in enumerate(row) if n}
        # between batches of other sizes products round otherwise, and close calls may differ
        assert sum(stored.values()) == sum(expected.values())
        apart = sum(abs(stored.get(k, 0) - expected[k]) for k in stored.keys() | expected.keys())
        assert apart <= 0.004 * sum(expected.values())
    load = json.loads(mixed.result.read_text())["moe"][0]["load"]
    shares = part.channels_CE.sum(0) / part.channels_CE.sum()
    assert shares.tolist() == pytest.approx(load, abs=2e-3)


def test_of_a_long_test_windows_are_drawn(
    mixed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    run = finished_run(mixed)
    monkeypatch.setattr(served, "MOST_TOKENS", 20 * CHANNELS * PATCHES)
    test = serve_test(run.network, run.data)
    assert test.windows == 20
    (part,) = test.layers
    assert part.channels_CE is not None
    assert part.channels_CE.sum(1).tolist() == [20 * PATCHES * 2] * CHANNELS
    sections = served_sections(test, run.network, run.data)
    assert all("20 of the 182 test windows, drawn at random" in s.reading for s in sections)


@pytest.mark.parametrize(
    ("step", "name", "first", "values"),
    [
        ("15min", "hour of the day", "00", 24),
        ("D", "day of the week", "Wed", 7),
        ("7D", "week of the year", "1", 53),
        ("MS", "month of the year", "Jan", 12),
    ],
)
def test_the_calendar_is_the_one_in_which_such_data_repeat(
    tmp_path: Path, step: str, name: str, first: str, values: int
) -> None:
    times = pd.date_range("2020-01-01", periods=120, freq=step)
    frame = pd.DataFrame({"date": times, "x": np.random.default_rng(0).normal(size=120).round(3)})
    frame.to_csv(tmp_path / "own.csv", index=False)
    calendar = calendar_of(load_panel(str(tmp_path / "own.csv")))
    assert calendar is not None
    assert calendar.name == name
    assert len(calendar.labels) == values
    assert calendar.labels[int(calendar.of_row_R[0])] == first
    assert len(calendar.of_row_R) == 120
    assert int(calendar.of_row_R.max()) < values


def test_steps_that_are_counted_have_no_calendar(mixed: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    frame = pd.DataFrame({"date": range(160)})
    walks = np.random.default_rng(0).normal(size=(160, CHANNELS)).cumsum(0).round(3)
    frame[[f"c{n}" for n in range(CHANNELS)]] = walks
    frame.to_csv(tmp_path / "own.csv", index=False)
    data = ForecastData(str(tmp_path / "own.csv"), context=CONTEXT, horizon=HORIZON)
    test = serve_test(network := load_network(mixed.best), data)
    assert test.calendar is None
    assert test.layers[0].calendar_VE is None
    calendar, channels = served_sections(test, network, data)
    assert "have no calendar" in calendar.reading
    assert channels.svg


def test_departures_are_shares_less_the_mean_share() -> None:
    counts = torch.tensor([[3, 1], [0, 0], [1, 3], [4, 0]])
    points, means = departures(counts)
    assert means.tolist() == pytest.approx([8 / 12, 4 / 12])
    expected = [[75 - 200 / 3, np.nan, 25 - 200 / 3, 100 - 200 / 3]]
    expected.append([-point for point in expected[0]])
    np.testing.assert_allclose(points, expected, rtol=1e-12)
    weights = counts.sum(1).numpy()
    assert np.nansum(points * weights, axis=1).tolist() == pytest.approx([0, 0])


def test_experts_are_named_by_number_and_kind() -> None:
    mixture = MixedExperts([FeedForwardExperts(4, 2, 8), LinearExperts(4, 1), ZeroExperts(4, 2)])
    assert expert_names(mixture) == (
        *("expert 0", "expert 1", "expert 2 (linear)"),
        *("expert 3 (zero)", "expert 4 (zero)"),
    )


def test_the_transformer_has_a_map_of_the_calendar_alone(mixed: RunFolder) -> None:
    pytest.importorskip("matplotlib")
    data = finished_run(mixed).data
    network = EncoderDecoderTransformer(
        *(CHANNELS, CONTEXT, HORIZON),
        d_model=8,
        num_heads=2,
        d_ff=16,
        feedforward=lambda width: MoE(width, num_experts=4),
    ).eval()
    test = serve_test(network, data)
    assert [part.channels_CE for part in test.layers] == [None] * 3
    calendar = [part.calendar_VE for part in test.layers if part.calendar_VE is not None]
    steps = (CONTEXT, CONTEXT, HORIZON)
    assert [int(c.sum()) for c in calendar] == [TEST_WINDOWS * 2 * n for n in steps]
    weeks, channels = served_sections(test, network, data)
    assert weeks.svg
    assert not channels.svg
    assert "EncoderDecoderTransformer does not tell the channel" in channels.reading


@pytest.mark.parametrize("epochs", [1, 40])
@pytest.mark.parametrize("experts", [1, 2, 40])
def test_pictures_can_be_drawn_of_few_and_of_many(epochs: int, experts: int) -> None:
    pytest.importorskip("matplotlib")
    layers = [f"encoder.{i}.feedforward" for i in range(3)]
    rows = [
        Row(epoch, layer, measure, expert, 1 / experts)
        for epoch in range(1, epochs + 1)
        for layer in layers
        for measure, expert in (
            *(("load", e) for e in range(experts)),
            *((name, None) for name in ("selection_entropy", "weight_entropy", "change_rate")),
            *((name, None) for name in ("changed_tokens", "dropped", "router_agreement")),
        )
    ]
    names = {layer: [f"expert {e}" for e in range(experts)] for layer in layers}
    sections = epoch_sections(rows, names, dict.fromkeys(layers, (experts, 1)), None)
    assert len(sections) == 5
    assert all("</svg>" in section.svg and section.finding for section in sections)


def test_a_run_without_a_table_still_shows_whom_its_experts_serve(copied: RunFolder) -> None:
    pytest.importorskip("matplotlib")
    copied.routing.unlink()
    assert main(["moe", "report", str(copied.path)]) == 0
    page = page_of(copied)
    assert "routing.csv is missing" in page.text
    assert len(page.pictures) == 2


def test_names_from_files_are_not_taken_for_markup(copied: RunFolder) -> None:
    pytest.importorskip("matplotlib")
    result = json.loads(copied.result.read_text())
    result["dataset"]["name"] = "<script>alert(1)</script>"
    copied.result.write_text(json.dumps(result))
    assert main(["moe", "report", str(copied.path)]) == 0
    assert "<script>" not in copied.routing_page.read_text()
    assert "<script>alert(1)</script>" in page_of(copied).text


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Ask for a report, which must be refused in one line, and return that line."""

    def run(*words: object) -> str:
        assert main(["moe", "report", *map(str, words)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said

    return run


def test_a_page_that_exists_is_not_replaced_unasked(
    copied: RunFolder, refused: Callable[..., str]
) -> None:
    copied.routing_page.write_text("mine")
    assert "--overwrite" in refused(copied.path)
    assert copied.routing_page.read_text() == "mine"
    assert "is a folder" in refused(copied.path, "--out", copied.path)


def test_page_of_another_kind_is_refused(copied: RunFolder, refused: Callable[..., str]) -> None:
    out = copied.path.with_name("page.pdf")
    assert "ends in .html" in refused(copied.path, "--out", out)
    assert not out.exists()


def test_what_is_no_finished_run_with_mixtures_is_refused(
    copied: RunFolder, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "no run folder" in refused(tmp_path / "nowhere")
    assert "no run folder" in refused(tmp_path)
    result = json.loads(copied.result.read_text())
    del result["moe"]
    copied.result.write_text(json.dumps(result))
    assert "PatchTST in" in (said := refused(copied.path))
    assert "no mixtures of experts" in said
    copied.result.write_text(json.dumps(result | {"refit_of": "runs/first"}))
    assert "the validated run has them: tsattn moe report runs/first" in refused(copied.path)
    copied.result.unlink()
    assert "is not finished" in (said := refused(copied.path))
    assert "--ckpt_path last" in said
    assert not copied.routing_page.exists()


def test_a_run_whose_checkpoint_or_data_are_gone_is_refused(
    copied: RunFolder, refused: Callable[..., str]
) -> None:
    settings = yaml.safe_load(copied.config.read_text())
    settings["data"]["of_tomorrow"] = 1
    copied.config.write_text(yaml.safe_dump(settings))
    assert "unknown settings of data" in refused(copied.path)
    del settings["data"]["of_tomorrow"]
    settings["data"]["dataset"] = "gone.csv"
    copied.config.write_text(yaml.safe_dump(settings))
    assert "gone.csv" in refused(copied.path)
    copied.best.unlink()
    assert "no checkpoint at" in refused(copied.path)


def test_without_matplotlib_the_extra_is_named(
    copied: RunFolder, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'tsattn[plots]'" in refused(copied.path)
    assert not copied.routing_page.exists()


def test_other_words_after_moe_are_a_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["moe"], ["moe", "reprt", "run"], ["moe", "report"]):
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert leaving.value.code == 2
    assert read_rows(Path("nowhere.csv")) == []


def test_data_of_a_run_are_those_of_its_recipe(mixed: RunFolder) -> None:
    run = finished_run(mixed)
    assert isinstance(run.data, ForecastData)
    assert isinstance(run.network, PatchTST)
    assert (run.data.context, run.data.horizon) == (CONTEXT, HORIZON)
    assert not run.network.training
