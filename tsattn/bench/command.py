"""`tsattn bench kernels`, `auto`, `train`, `moe`, `memory`, `forecast`: check, measure, show.

`run` and `plan` fill a table of results; they are in `tsattn.bench.grid`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from tsattn.bench import forecasting, gate, mixtures, report, settings
from tsattn.bench.auto import compare
from tsattn.bench.ceilings import DTYPES, Product, copy_gigabytes_per_second, product_rates
from tsattn.bench.footprint import measure_memory
from tsattn.bench.kernel_memory import kernel_memory
from tsattn.bench.kernels import CASES, case_of, time_kernels
from tsattn.bench.machine import describe, usable_cores
from tsattn.bench.memory import STEPS, measure_training
from tsattn.bench.mixture_gate import mixture_checks
from tsattn.bench.mixture_memory import measure_mixture
from tsattn.bench.mixture_timing import Memory, time_mixtures
from tsattn.bench.peers import PEERS, peers_of
from tsattn.bench.recipes import LARGE_RECIPES, RECIPES, Recipe
from tsattn.bench.timing import steady
from tsattn.bench.train import PRECISIONS, names_of, peer_checks, time_training
from tsattn.bench.worker import PHASES
from tsattn.console import open_console
from tsattn.errors import ConfigError, MissingExtraError
from tsattn.ops import VALUE_ACTIVATIONS, Impl, availability
from tsattn.options import CommandParser

_LARGE_PRODUCT = Product(8192, 512, 2048)
_MIXED = {"float32": "float32", "bf16": "bfloat16"}


def bench(words: Sequence[str]) -> int:
    """Run ``tsattn bench`` as typed after that.

    Args:
        words: ``kernels``, ``auto``, ``train``, ``moe``, ``memory`` or ``forecast``, and options.

    Returns:
        The exit status: 1 where a check failed, and nothing was timed.

    Raises:
        ConfigError: an option that cannot work.
        ExistsError: the JSON file exists, and ``--overwrite`` was not given.
    """
    given = _parser().parse_args(list(words))
    options: Namespace = given[given.subcommand]
    report.refuse_existing(options.json, overwrite=options.overwrite)
    console = open_console(200)  # a file has room for every column
    machine = describe(options.threads)
    for line in report.header(machine):
        console.print(line, style="yellow" if line.startswith("warning") else None)
    runs = {"kernels": _kernels, "auto": _auto, "train": _train, "moe": _moe, "memory": _memory}
    run = (runs | {"forecast": _forecast})[given.subcommand]
    with steady(options.threads):
        checks, ceilings, timings = run(options, console)
    if timings:
        report.show_table(timings, console)
    if options.json:
        report.write_json(options.json, machine, ceilings, checks, timings)
    if timings and options.markdown:
        print(report.markdown(machine, timings))
    return 1 if gate.failures(checks) else 0


def _kernels(options: Namespace, console: Console) -> Any:
    known = {case.name: case for case in CASES}
    cases = [known[name] for name in _chosen(options.only, known, "case")]
    if options.shape:
        cases = [case_of(text) for text in options.shape] + (cases if options.only else [])
    activations = _chosen(options.activations, VALUE_ACTIVATIONS, "activation")
    dtypes = _chosen(options.dtypes, DTYPES, "dtype")
    impls = _implementations(options.impls)
    checks = [*gate.attention_checks(impls, dtypes), *gate.parity_checks(impls)]
    report.show_checks(checks, console)
    if gate.failures(checks):
        return checks, {}, []
    rates = product_rates([_LARGE_PRODUCT], dtypes)
    copied = copy_gigabytes_per_second()
    ceilings = {"products": [asdict(rate) for rate in rates], "copy_gb_per_s": asdict(copied)}
    timings = time_kernels(
        cases,
        impls,
        rounds=options.rounds,
        activations=activations,
        dtypes=dtypes,
        product_gflops={rate.dtype: rate.gflops.median for rate in rates},
        copy_gigabytes=copied.median,
        memory=kernel_memory(options.threads) if options.memory else lambda *_: None,
    )
    return checks, ceilings, list(timings)


def _auto(options: Namespace, console: Console) -> Any:
    dtypes = _chosen(options.dtypes, DTYPES, "dtype")
    impls = _implementations(options.impls)
    if options.impls is None:
        impls = [impl for impl in impls if impl in ("auto", "cpu")]
    chosen = settings.quick(dtypes) if options.quick else settings.everything(dtypes)
    chosen = settings.among(chosen, options.lengths, options.widths)
    checks = [*gate.attention_checks(impls, dtypes), *gate.parity_checks(impls)]
    checks += settings.checks(chosen, impls)
    report.show_checks(checks, console)
    if gate.failures(checks):
        return checks, {}, []
    return checks, {}, list(compare(chosen, impls, rounds=options.rounds))


def _train(options: Namespace, console: Console) -> Any:
    known = {recipe.name: recipe for recipe in RECIPES}
    recipes = [known[name] for name in _chosen(options.only, known, "recipe")]
    precisions = _chosen(options.precisions, dict.fromkeys(PRECISIONS), "precision")
    wanted = _chosen(options.peers, PEERS, "peer") if options.peers != [] else []
    phases = _chosen(options.phases, dict.fromkeys(PHASES), "phase")
    impls = _implementations(options.impls)
    dtypes = [_MIXED[precision] for precision in precisions]
    checks = [*gate.attention_checks(impls, dtypes), *gate.parity_checks(impls)]
    peers: dict[str, list[str]] = {}
    for recipe in recipes:
        checks += gate.network_checks(recipe, impls, precisions)
        peers[recipe.name], found = _usable_peers(recipe, wanted, console)
        checks += found
    report.show_checks(checks, console)
    if gate.failures(checks):
        return checks, {}, []
    memory: Callable[[Recipe, str], Any] = partial(measure_memory, threads=options.threads)
    timings = [
        timing
        for recipe in recipes
        for timing in time_training(
            recipe,
            names_of(impls, precisions, peers[recipe.name]),
            rounds=options.rounds,
            threads=options.threads,
            memory=memory if options.memory else lambda recipe, name: None,
            phases=phases,
        )
    ]
    rates = [asdict(r) for recipe in recipes for r in product_rates(recipe.products)]
    copied = asdict(copy_gigabytes_per_second())
    return checks, {"products": rates, "copy_gb_per_s": copied}, timings


def _moe(options: Namespace, console: Console) -> Any:
    known = {size.name: size for size in mixtures.SIZES}
    sizes = [known[name] for name in _chosen(options.only, known, "recipe")]
    names = mixtures.names_for(_chosen(options.gates, mixtures.MIXTURES, "gate"))
    parts = _chosen(options.parts, dict.fromkeys(mixtures.PARTS), "part")
    precisions = _chosen(options.precisions, dict.fromkeys(PRECISIONS), "precision")
    checks = list(mixture_checks(sizes, names, precisions))
    report.show_checks(checks, console)
    if gate.failures(checks):
        return checks, {}, []
    memory: Memory = partial(measure_mixture, threads=options.threads)
    how: dict[str, Any] = {"rounds": options.rounds}
    how["memory"] = memory if options.memory else lambda *_: None
    timings = [t for size in sizes for t in time_mixtures(size, parts, names, precisions, **how)]
    return checks, {}, timings


def _memory(options: Namespace, console: Console) -> Any:
    known = {recipe.name: recipe for recipe in LARGE_RECIPES}
    recipes = [known[name] for name in _chosen(options.only, known, "recipe")]
    precisions = _chosen(options.precisions, dict.fromkeys(PRECISIONS), "precision")
    wanted = _chosen(options.peers, PEERS, "peer") if options.peers != [] else []
    impls = _implementations(options.impls or ["auto"])
    few = replace(recipes[0], channels=7, recompute=True)  # all have the same layers
    checks = [*gate.parity_checks(impls), *gate.network_checks(few, impls, precisions)]
    peers, found = _usable_peers(few, wanted, console)
    checks += found
    report.show_checks(checks, console)
    if gate.failures(checks):
        return checks, {}, []

    def measure(recipe: Recipe, name: str) -> float | None:
        used = measure_memory(recipe, name, options.threads, STEPS)
        return used[0] if used else None

    names = names_of(impls, precisions, peers)
    uses = [use for recipe in recipes for use in measure_training(recipe, names, measure)]
    return checks, {}, uses


def _forecast(options: Namespace, console: Console) -> Any:
    peers = _chosen(options.peers, {"neuralforecast": None}, "peer") if options.peers else []
    show = partial(report.show_checks, console=console)
    checks, timings = forecasting.run(options.series, peers, options.rounds, show)
    return checks, {}, timings


def _usable_peers(
    recipe: Recipe, wanted: Sequence[str], console: Console
) -> tuple[list[str], list[gate.Check]]:
    """Return the peers that are installed, with their checks; say which are not."""
    usable: list[str] = []
    checks: list[gate.Check] = []
    for peer in (name for name in wanted if name in peers_of(recipe)):
        try:
            checks += peer_checks(recipe, [peer])
            usable.append(peer)
        except MissingExtraError as error:
            console.print(f"not compared: {error}", style="yellow")
    return usable, checks


def _implementations(asked: Sequence[str] | None) -> list[str]:
    """Return ``auto`` and whatever takes CPU tensors here, or those asked for."""
    reasons = {str(found.name): found for found in availability()}
    if asked is None:
        runs = (name for name, found in reasons.items() if found.available)
        return ["auto", *(name for name in runs if name != Impl.TRITON)]
    chosen = _chosen(asked, {"auto": None, **reasons}, "impl")
    for name in chosen:
        if name in reasons and not reasons[name].available:
            raise ConfigError(f"impl {name!r} cannot run here: {reasons[name].reason}")
    return chosen


def _chosen(asked: Sequence[str] | None, known: Mapping[str, Any], what: str) -> list[str]:
    for name in asked or ():
        if name not in known:
            near = get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown {what} {name!r}; expected {', '.join(known)}{hint}")
    return list(asked or known)


def _parser() -> CommandParser:
    about = (
        "Speed beside what people use today: paired medians, after the results were checked. "
        "Three more have a --help of their own: tsattn bench run (fill a table of many runs), "
        "tsattn bench plan (what run would do, and how long), tsattn bench uncertainty (coverage "
        "of intervals)."
    )
    parser = CommandParser(prog="tsattn bench", description=about)
    commands = parser.add_subcommands()
    for name, (function, rounds, _) in _SUBCOMMANDS.items():
        command = CommandParser()
        add: Callable[..., Any] = command.add_argument
        add("--threads", type=int, default=usable_cores(), help="threads of torch")
        if rounds:
            add("--rounds", type=int, default=rounds, help="how often everything is timed, in turn")
        if name not in ("moe", "forecast"):
            about = "our implementations; default: all that run here"
            add("--impls", nargs="+", type=str, help=about)
        add("--json", type=Path | None, help="file for everything that was measured")
        add("--overwrite", action="store_true", help="replace the JSON file")
        add("--markdown", action="store_true", help="print the table once more as Markdown")
        function(add)
        commands.add_subcommand(name, command, help=_SUBCOMMANDS[name][2])
    return parser


def _kernel_options(add: Callable[..., Any]) -> None:
    names = ", ".join(case.name for case in CASES)
    add("--only", nargs="+", type=str, help=f"cases among {names}")
    add("--shape", nargs="+", type=str, help="other shapes, each batch,heads,length,width")
    add("--activations", nargs="+", type=str, help="value activations; default: all six")
    add("--dtypes", nargs="+", type=str, default=["float32"], help="float32, bfloat16")
    add("--memory", type=bool, default=True, help="measure what a call adds, each in a process")


def _auto_options(add: Callable[..., Any]) -> None:
    add("--quick", action="store_true", help="the borders of the grid, not all of it")
    add("--lengths", nargs="+", type=int, help=f"among {_listed(settings.LENGTHS)}")
    add("--widths", nargs="+", type=int, help=f"among {_listed(settings.WIDTHS)}")
    add("--dtypes", nargs="+", type=str, help="float32, bfloat16; default: both")


def _train_options(add: Callable[..., Any]) -> None:
    names = ", ".join(recipe.name for recipe in RECIPES)
    add("--only", nargs="+", type=str, help=f"recipes among {names}")
    add("--precisions", nargs="+", type=str, help="float32, bf16; default: both")
    add("--peers", nargs="*", type=str, help=f"among {', '.join(PEERS)}; default: all")
    phases = ", ".join(PHASES)
    add("--phases", nargs="+", type=str, help=f"among {phases}; default: all")
    add("--memory", type=bool, default=True, help="measure peak memory, each in a process")


def _moe_options(add: Callable[..., Any]) -> None:
    names = ", ".join(size.name for size in mixtures.SIZES)
    add("--only", nargs="+", type=str, help=f"recipes among {names}")
    add("--gates", nargs="+", type=str, help=f"among {', '.join(mixtures.MIXTURES)}; default: all")
    add("--parts", nargs="+", type=str, help="feed-forward, network; default: both")
    add("--precisions", nargs="+", type=str, help="float32, bf16; default: both")
    add("--memory", type=bool, default=True, help="measure peak memory, each in a process")


def _memory_options(add: Callable[..., Any]) -> None:
    names = ", ".join(recipe.name for recipe in LARGE_RECIPES)
    add("--only", nargs="+", type=str, help=f"recipes among {names}")
    add("--precisions", nargs="+", type=str, help="float32, bf16; default: both")
    known, default = ", ".join(PEERS), ["neuralforecast"]
    add("--peers", nargs="*", type=str, default=default, help=f"among {known}")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


_SUBCOMMANDS: Mapping[str, tuple[Callable[[Callable[..., Any]], None], int, str]] = {
    "kernels": (_kernel_options, 11, "the attention operation, per implementation and activation"),
    "auto": (_auto_options, 7, "whether any length or width is slower than torch's attention"),
    "train": (_train_options, 7, "networks beside neuralforecast, Hugging Face and plain torch"),
    "moe": (_moe_options, 7, "mixtures of experts beside the dense feed-forward"),
    "memory": (
        _memory_options,
        0,
        "peak memory of the large recipes, with and without recomputation",
    ),
    "forecast": (forecasting.options, 7, "forecasts of many series, of one window, and loading"),
}
