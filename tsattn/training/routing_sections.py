"""The sections of the page on routing: how to read a picture, what it shows, and the picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tsattn.models import ForecastNetwork
from tsattn.training.datamodule import ForecastData
from tsattn.training.routing import short_name
from tsattn.training.routing_pictures import (
    draw_entropies,
    draw_lines,
    draw_loads,
    loads_of,
    values_of,
)
from tsattn.training.routing_table import Row
from tsattn.training.served import ServedTest
from tsattn.training.served_pictures import departures, draw_served
from tsattn.training.svg import percent


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        title: its title.
        reading: how to read the picture, or why there is none.
        finding: what this run shows, mostly one sentence.
        svg: the picture, if there is one.
    """

    title: str
    reading: str
    finding: str = ""
    svg: str = ""


def epoch_sections(
    rows: Sequence[Row],
    experts: Mapping[str, Sequence[str]],
    sizes: Mapping[str, tuple[int, int]],
    best_epoch: int | None,
) -> list[Section]:
    """Return what ``routing.csv`` shows.

    Args:
        rows: the table.
        experts: names of the experts, by layer.
        sizes: number of experts and of experts of a token, by layer.
        best_epoch: epoch of the best checkpoint.
    """
    layers = [layer for layer in experts if len(loads_of(rows, layer)[0])]
    if not layers:
        return [
            Section(
                "Over the epochs",
                "There are no pictures over the epochs: the run's routing.csv is missing or has no "
                "epoch with a validation.",
            )
        ]
    named = {layer: experts[layer] for layer in layers}
    sections = [
        Section(
            "Load over the epochs",
            "How the slots of all validation tokens are shared by the experts of each layer after "
            "every epoch. Bands of one height mean equal work; a band that vanishes is an expert "
            "that nobody uses. The shares at the right are those of the last epoch.",
            _busiest(rows, named),
            draw_loads(rows, named, best_epoch),
        ),
        Section(
            "Entropy over the epochs",
            "Left: how evenly the load of a layer is spread, from 0 bits (one expert does all) to "
            "the dashed line (all alike). Right: how evenly a token weighs its own experts, on "
            "average; low means that one of them decides. The right scales say the same as a "
            "number of experts or weights that are all alike, 2 to the power of the bits.",
            _spread(rows, sizes, layers),
            draw_entropies(rows, {layer: sizes[layer] for layer in layers}, best_epoch),
        ),
    ]
    measured = {row.measure for row in rows}
    if "change_rate" in measured:
        panels = {"change_rate": "expert change rate", "changed_tokens": "changed tokens"}
        changes = Section(
            "Changes from epoch to epoch",
            "Left: the share of assignments (a token and one of its experts) that the epoch before "
            "did not have, over the tokens of the same validation windows. Right: the share of "
            "tokens of which at least one expert changed. Lines that fall to the floor mean that "
            "the router has settled.",
            _settling(rows, layers),
            draw_lines(rows, layers, panels, best_epoch),
        )
        sections.append(changes)
    return sections + _training_sections(rows, layers, best_epoch)


def _training_sections(
    rows: Sequence[Row], layers: Sequence[str], best_epoch: int | None
) -> list[Section]:
    readings = {
        "router_agreement": (
            "Agreement of router and competition",
            "The share of the competition's winners that the router would have picked too, over "
            "the training steps of an epoch in which experts competed. 100 % means that the router "
            "has learnt the competition's policy.",
        ),
        "dropped": (
            "Dropped slots",
            "The share of training slots for which the chosen expert had no room left. A dropped "
            "slot adds nothing to its token.",
        ),
    }
    measured = {row.measure for row in rows}
    return [
        Section(
            title,
            reading,
            f"In the last epoch: {_span(_last(rows, layers, measure))}.",
            draw_lines(rows, layers, {measure: title.lower()}, best_epoch),
        )
        for measure, (title, reading) in readings.items()
        if measure in measured
    ]


def served_sections(
    served: ServedTest, network: ForecastNetwork, data: ForecastData
) -> list[Section]:
    """Return which hours or weeks and which channels each expert serves.

    Args:
        served: what the experts did.
        network: the network, for its name.
        data: the data, for the names of its channels.
    """
    experts = {part.layer: part.experts for part in served.layers}
    total = len(data.prepared.test)
    whose = f"all {total:,} test windows"
    if served.windows < total:
        whose = f"{served.windows:,} of the {total:,} test windows, drawn at random"
    reading = (
        "Red: in this column the expert gets more of the slots than its mean share, which stands "
        "beside its name; blue: less; white: as on average. Columns are the {name}. Counted over "
        "{whose}, from the best checkpoint. {how}"
    )
    by_channel = {p.layer: p.channels_CE for p in served.layers if p.channels_CE is not None}
    kinds = [("channel", data.prepared.panel.channels, "", by_channel)]
    sections: list[Section] = []
    if calendar := served.calendar:
        how = "A token that spans several steps counts at the step in its middle."
        by_value = {p.layer: p.calendar_VE for p in served.layers if p.calendar_VE is not None}
        kinds.insert(0, (calendar.name, calendar.labels, how, by_value))
    else:
        why = "There is no map: these data count steps, which have no calendar."
        sections.append(Section("Whom the experts serve: calendar", why))
    for name, labels, how, maps in kinds:
        title = f"Whom the experts serve: {name}"
        kind = type(network).__name__
        if not maps:
            why = f"There is no map: {kind} does not tell the {name} of its tokens apart."
            sections.append(Section(title, why))
            continue
        text = reading.format(name=name, whose=whose, how=how).strip()
        named = {layer: experts[layer] for layer in maps}
        picture = draw_served(maps, named, labels, name)
        sections.append(Section(title, text, _strongest(maps, named, labels, name), picture))
    return sections


def _busiest(rows: Sequence[Row], experts: Mapping[str, Sequence[str]]) -> str:
    shares = [
        (share, f"{name} of {short_name(layer)}")
        for layer, names in experts.items()
        for share, name in zip(loads_of(rows, layer)[1][:, -1], names, strict=True)
    ]
    least, most = min(shares), max(shares)
    return (
        f"In the last epoch {most[1]} has the greatest load, {percent(most[0])}, and {least[1]} "
        f"the smallest, {percent(least[0])}."
    )


def _spread(
    rows: Sequence[Row], sizes: Mapping[str, tuple[int, int]], layers: Sequence[str]
) -> str:
    bits = _last(rows, layers, "selection_entropy")
    least, most = f"{2 ** min(bits):.1f}", f"{2 ** max(bits):.1f}"
    span = least if least == most else f"{least} to {most}"
    experts = max(sizes[layer][0] for layer in layers)
    return f"In the last epoch the load is spread as evenly as over {span} of {experts} experts."


def _settling(rows: Sequence[Row], layers: Sequence[str]) -> str:
    curves = [values_of(rows, layer, "change_rate") for layer in layers]
    curves = [curve for curve in curves if len(curve[0])]
    first, last = int(curves[0][0][0]), int(curves[0][0][-1])
    before = _span([values[0] for _, values in curves])
    if first == last:
        return f"In epoch {first}, {before} of the assignments changed."
    after = _span([values[-1] for _, values in curves])
    return f"In epoch {first}, {before} of the assignments changed; in epoch {last}, {after}."


def _last(rows: Sequence[Row], layers: Sequence[str], measure: str) -> list[float]:
    curves = [values_of(rows, layer, measure)[1] for layer in layers]
    return [float(values[-1]) for values in curves if len(values)]


def _span(shares: Sequence[float]) -> str:
    least, most = percent(min(shares)), percent(max(shares))
    return least if least == most else f"{least} to {most}"


def _strongest(
    counts: Mapping[str, Tensor],
    experts: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    name: str,
) -> str:
    """Say where an expert exceeds its mean share most, among values that are not rare."""
    best = (-1.0, "")
    for layer, counts_VE in counts.items():
        points_EV, mean_E = departures(counts_VE)
        totals_V = counts_VE.sum(dim=1).double().numpy()
        points_EV[:, totals_V < totals_V.mean() / 2] = np.nan
        expert, value = divmod(int(np.nanargmax(points_EV)), points_EV.shape[1])
        points = float(points_EV[expert, value])
        share = percent(mean_E[expert] + points / 100)
        text = (
            f"Most striking: {experts[layer][expert]} of {short_name(layer)} gets {share} of the "
            f"slots for {name} {labels[value]}, and {percent(mean_E[expert])} on average."
        )
        best = max(best, (points, text))
    return best[1]
