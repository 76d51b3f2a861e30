"""How a plan is printed: in groups of runs, by probe, by study of a paper, and on GPUs."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from repetita.cli.options import print_json, print_table

if TYPE_CHECKING:
    from repetita.study.accelerators import GpuPrice
    from repetita.study.ledger import Ledger
    from repetita.study.prepare import Bundle, Prepared
    from repetita.study.summary import Summary


def show_plan(
    whole: "Bundle",
    *,
    root: Path,
    processes: int,
    gpus: dict[str, Any] | None,
    say: Callable[[str], None],
    as_json: bool,
) -> None:
    """Plans a study or a paper and prints it; `gpus` holds the options of `price_on_gpus`."""
    from repetita.study.accelerators import by_size, price_on_gpus
    from repetita.study.expected import plan_corpora
    from repetita.study.ledger import ledger_table
    from repetita.study.prepare import prepare
    from repetita.study.summary import group_of, summarise

    prepared = prepare(whole.portions, root=root, corpora=plan_corpora(whole.portions, root=root, say=say))
    summary = summarise(prepared, processes=processes)
    price = (
        price_on_gpus(prepared, **gpus, by=by_size(prepared) if whole.paper else group_of) if gpus else None
    )
    kept = _ledger(prepared, root=root, processes=processes, gpus=gpus) if whole.paper else None
    detectable = _detectable(whole, headlines=not as_json)
    if as_json:
        name = whole.paper.paper.name if whole.paper else whole.portions[0].found.study.name
        more = {} if price is None else {"gpu": price.as_json()}
        more |= {} if kept is None else {"studies": kept.as_json()}
        print_json(
            {"study": name, "scale": whole.scale} | summary.as_json() | more | {"detectable": detectable}
        )
        return
    _print_head(whole)
    if kept is not None:
        table = ledger_table(kept)
        print_table(
            [dict(zip(table.columns, map(_number, row), strict=True)) for row in table.rows],
            right=table.columns[1:],
        )
        typer.echo(f"{table.caption}\n")
    if price is None:
        print_summary(summary, whole=kept is not None)
    else:
        _print_price(price, summary=summary)
        typer.echo(f"\nlaunch it on a cluster that sees SHARED (docs/scaling.md):\n  {_launch(whole)}")
    if detectable:
        typer.echo("\nSmallest effect that each claim can detect")
        print_table([{"claim": name, "detects": text} for name, text in detectable.items()])


def _ledger(prepared: "Prepared", *, root: Path, processes: int, gpus: dict[str, Any] | None) -> "Ledger":
    """The costs by study, in minutes of a process or in GPU-hours."""
    from repetita.study.accelerators import gpu_seconds
    from repetita.study.ledger import ledger

    if gpus is None:
        return ledger(prepared, root=root, processes=processes)
    on_gpus = partial(gpu_seconds, device=gpus["device"], utilisation=gpus["utilisation"])
    return ledger(prepared, root=root, processes=processes, on_gpus=on_gpus)


def _detectable(whole: "Bundle", *, headlines: bool) -> dict[str, str]:
    """By claim; of a paper by study and claim, or with `headlines` only the first claim of each study."""
    found: dict[str, str] = {}
    for part in whole.portions:
        effects = list(part.found.study.detectable(part.scale).items())
        if whole.paper and headlines:
            effects = effects[:1]
        before = f"{part.found.study.name}: " if whole.paper else ""
        found |= {before + name: text for name, text in effects}
    return found


def _print_head(whole: "Bundle") -> None:
    if whole.paper:
        typer.echo(f"{whole.paper.paper.title} ({whole.scale})\n{whole.paper.paper.source}\n")
        return
    study = whole.portions[0].found.study
    typer.echo(f"{study.title} ({whole.scale})\n{study.question}")
    typer.echo(f"Prediction: {study.prediction} [{study.source}]\n")


def _number(cell: object) -> object:
    from repetita.study.price import count_text

    return count_text(cell) if isinstance(cell, int) and cell >= 1000 else cell


def _print_price(price: "GpuPrice", *, summary: "Summary") -> None:
    from repetita.study.price import count_text, share_text, size_text

    rows = [
        {
            "group": group.name,
            "runs": group.n_runs,
            "train tokens": count_text(group.training_tokens),
            "measuring": count_text(group.measuring_tokens),
            "GPU-hours": count_text(group.gpu_hours),
            "GPUs": group.fewest_gpus,
            "memory each": size_text(group.memory),
        }
        for group in price.groups
    ]
    print_table(rows, right=("runs", "train tokens", "measuring", "GPU-hours", "GPUs", "memory each"))
    measuring = price.measuring_gpu_hours / price.gpu_hours if price.gpu_hours else None
    typer.echo(
        f"\n{summary.n_runs} runs, {summary.n_present} complete already; GPUs: the fewest that hold weights, "
        f"gradients, Adam's moments and one sequence a GPU\n"
        f"{count_text(price.gpu_hours)} GPU-hours on {price.device} at {100 * price.utilisation:g}% of its "
        f"{count_text(price.flops_per_second)}FLOP/s, {share_text(measuring)} of it measuring\n"
        f"with {price.n_gpus} GPU{'s' if price.n_gpus > 1 else ''}: {_time(price.hours)} by list scheduling, "
        f"at least {_time(price.least_hours)}; disk {size_text(summary.disk)}"
    )


def _launch(whole: "Bundle") -> str:
    """The command that runs the plan on Ray."""
    reference = whole.paper.reference if whole.paper else whole.portions[0].found.reference
    of = whole.text.options if whole.text else ""
    cluster = "--engine ray --address HEAD:6379 --device cuda --root SHARED"
    return f"repetita study run {shlex.quote(reference)} --scale {whole.scale}{of} {cluster}"


def _time(hours: float) -> str:
    from repetita.study.price import time_text

    return f"{hours / 24:.1f} days" if hours > 48 else time_text(3600 * hours)


def print_summary(summary: "Summary", *, whole: bool) -> None:
    """Prints what is left to be done; of a `whole` paper without its groups of runs."""
    from repetita.study.price import count_text, share_text, size_text, time_text

    heads = ("runs", "done", "train tokens", "measuring", "of the time", "one process")
    rows = [
        {
            "group": group.name,
            "runs": group.n_runs,
            "done": group.n_present,
            "train tokens": count_text(group.training_tokens),
            "measuring": count_text(group.measuring_tokens),
            "of the time": share_text(group.measuring_share),
            "one process": time_text(group.seconds) if group.seconds else "-",
        }
        for group in summary.groups
    ]
    if not whole:
        print_table(rows, right=heads)
    if summary.probes and not whole:
        typer.echo("\nMeasuring, by probe")
        lines = [
            {
                "probe": probe.name,
                "times": probe.times,
                "tokens": count_text(probe.tokens),
                "of the time": share_text(probe.share),
            }
            for probe in summary.probes
        ]
        print_table(lines, right=("times", "tokens", "of the time"))
    only = {"shared trunks": summary.n_trunks, "parents": summary.n_parents}
    listed = ", ".join(f"{n} only as {what}" for what, n in only.items() if n)
    trunks = f" ({listed})" if listed else ""
    typer.echo(
        f"\n{summary.n_runs} runs{trunks}, {summary.n_present} complete already\n"
        f"left: {count_text(summary.training_tokens)} tokens of training, "
        f"{count_text(summary.measuring_tokens)} of measuring "
        f"({share_text(summary.measuring_share)} of the time)"
    )
    if summary.replayed_steps:
        typer.echo(
            f"{summary.replayed_steps} steps of finished runs are trained again to measure what they lack "
            f"(no checkpoint was kept there)"
        )
    wall = time_text(summary.seconds) if summary.seconds else "nothing to do"
    typer.echo(
        f"time: {wall} on {summary.processes} process{'es' if summary.processes > 1 else ''} "
        f"(rates from {summary.rates}); memory {size_text(summary.memory)}, disk {size_text(summary.disk)}"
    )
