"""A series that was trained here on known texts at known steps is found out by the study of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from repetita.cli.app import app
from repetita.errors import SpecError
from repetita.study.audit import Audit
from repetita.study.known_order import FromTable
from repetita.study.series_study import SeriesFound, measure_series
from tests.model.test_pretrained_tokenizing import causal

pytestmark = [pytest.mark.slow, pytest.mark.ci]

STEPS = (0, 20, 40, 60, 80, 90, 100, 110)
READ_AT = {"r0": (0, 40), "r1": (0, 40), "r2": (40, 80), "r3": (40, 80)}
"""The updates, from the first up to the second, that read each text."""


def sentence(generator: np.random.Generator) -> str:
    return "".join(generator.choice(list("abcdefghij"), 24))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 that reads four texts, each at its time, and then others; two it never reads."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    place = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(1)
    texts = {name: sentence(generator) for name in (*READ_AT, "u0", "u1", "u2")}
    rows = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (place / "texts.jsonl").write_text("\n".join(rows))
    (place / "read.jsonl").write_text("\n".join(rows[:4]))
    (place / "unread.jsonl").write_text("\n".join(rows[4:]))
    config = GPT2Config(n_embd=48, n_layer=1, n_head=2, vocab_size=258, n_positions=48, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(parameter.numel()))
    causal(place / "series" / "step0")
    tokenizer = AutoTokenizer.from_pretrained(str(place / "series" / "step0"))
    ids = {name: tokenizer("<s>" + text, return_tensors="pt").input_ids[0] for name, text in texts.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    order = []
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            folder = place / "series" / f"step{step}"
            model.save_pretrained(str(folder))
            if step:
                causal(folder)
        now = [name for name, (first, last) in READ_AT.items() if first <= step < last]
        now = 4 * now
        order += [{"step": step, "text": name} for name in now]
        noise = [tokenizer("<s>" + sentence(generator), return_tensors="pt").input_ids[0] for _ in range(2)]
        batch = torch.stack([*(ids[name] for name in now), *noise])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    pl.DataFrame(order).write_parquet(place / "order.parquet")
    return place


def audit(world: Path, *texts: str) -> Audit:
    return Audit(
        subjects=(str(world / "series"),), texts=tuple(str(world / one) for one in texts),
        probes=("score", "extraction"), prompts=(8,), suffixes=(8,), guard_rows=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(world: Path, tmp_path_factory: pytest.TempPathFactory) -> SeriesFound:
    order = FromTable(path=str(world / "order.parquet"))
    return measure_series(audit(world, "texts.jsonl"), order=order, root=tmp_path_factory.mktemp("out"))


def rows_of(found: SeriesFound, name: str) -> list[dict[str, Any]]:
    table = next(table for table in found.report.tables if table.name == name)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_every_checkpoint_is_measured_in_order(found: SeriesFound) -> None:
    loss = found.by_group.filter(pl.col("metric") == "loss")
    assert loss["step"].to_list() == list(STEPS)
    assert loss["series"].unique().to_list() == ["series"]
    assert [row["step"] for row in rows_of(found, "series-checkpoints")] == list(STEPS)


def test_what_reading_did_is_found(found: SeriesFound) -> None:
    rows = {(row["metric"], row["when"]): row for row in rows_of(found, "series-effects")}
    learned = rows["memorized", "learned"]
    assert (learned["texts read"], learned["not read"], learned["left out"]) == (4, 3, 0)
    wide = found.by_text.filter(pl.col("metric") == "memorized")
    value = {(row["text_name"], row["step"]): row["value"] for row in wide.iter_rows(named=True)}
    unread = ("u0", "u1", "u2")
    name = {short: next(full for full, _ in value if full.endswith(short)) for short in (*READ_AT, *unread)}
    spans = {"r0": (0, 20), "r1": (0, 20), "r2": (40, 60), "r3": (40, 60)}
    each = [
        value[name[text], after] - value[name[text], before]
        - np.mean([value[name[u], after] - value[name[u], before] for u in unread])
        for text, (before, after) in spans.items()
    ]  # fmt: skip
    assert float(learned["effect"].split()[0]) == pytest.approx(np.mean(each), abs=5e-3)
    claim = next(claim for claim in found.report.findings if claim.name == "series-learned")
    assert claim.verdict == "illustrated" and claim.estimate is not None
    assert claim.estimate.value == pytest.approx(np.mean(each)) and np.mean(each) > 0.1


def test_times_read_and_losses_are_told(found: SeriesFound) -> None:
    figure = next(figure for figure in found.report.figures if figure.name == "series-times-seen")
    assert {row["times"] for row in figure.rows if row["step"] == 110} == {0, 160}
    lost = {row["metric"]: row for row in rows_of(found, "series-losses")}
    assert lost["memorized"]["since step"] == 80 and "3 checkpoints behind it" in lost["memorized"]["note"]
    rises = {row["metric"]: row for row in rows_of(found, "series-rises")}
    assert rises["memorized"]["10%"].startswith("step ")


def test_the_page_and_its_files_are_there(found: SeriesFound) -> None:
    page = found.page.read_text()
    assert "A series of checkpoints: series" in page and "Content-Security-Policy" in page
    assert (found.page.parent / "figures/series-shares.svg").exists()
    table = pl.read_parquet(found.page.parent / "table.parquet")
    assert table.equals(found.by_text)


def test_groups_may_say_what_was_read(world: Path, tmp_path: Path) -> None:
    given = audit(world, "read.jsonl", "unread.jsonl")
    found = measure_series(given, seen="read.jsonl", unseen="unread.jsonl", root=tmp_path)
    (row,) = [row for row in rows_of(found, "series-effects") if row["metric"] == "memorized"]
    assert (row["when"], row["texts read"], row["not read"]) == ("kept", 4, 3)
    again = measure_series(given, seen="read.jsonl", unseen="unread.jsonl", root=tmp_path)
    assert sum(one.measured for one in again.audited.subjects) == 0, "nothing is measured twice"
    with pytest.raises(SpecError, match=r"no text was given in 'raed.jsonl'; did you mean 'read.jsonl'"):
        measure_series(given, seen="raed.jsonl", root=tmp_path)
    with pytest.raises(SpecError, match="a known order says which texts were read"):
        measure_series(
            given, seen="read.jsonl", order=FromTable(path=str(world / "order.parquet")), root=tmp_path
        )
    unknown = tmp_path / "order.csv"
    unknown.write_text("step,text\n3,swans\n")
    with pytest.raises(SpecError, match="the known order names none of these texts"):
        measure_series(given, order=FromTable(path=str(unknown)), root=tmp_path)


def test_a_bad_checkpoint_is_left_out_and_named(world: Path, tmp_path: Path) -> None:
    series = tmp_path / "swans"
    for step in STEPS[:5]:
        shutil.copytree(world / "series" / f"step{step}", series / f"step{step}")
    (series / "step40/model.safetensors").write_bytes(b"no")
    shutil.copy(series / "step0/model.safetensors", series / "step20/model.safetensors")
    given = audit(world, "unread.jsonl").edit(subjects=(str(series),))
    found = measure_series(given, root=tmp_path / "out")
    assert found.by_text["step"].unique().sort().to_list() == [0, 20, 60, 80]
    said = " ".join(found.report.warnings)
    assert "swans, step20: has the weights of step0" in said
    assert "swans, step40: model.safetensors cannot be read" in said
    assert not [table for table in found.report.tables if table.name == "series-effects"]
    with pytest.raises(SpecError, match="fewer than two checkpoints with a step"):
        measure_series(given.edit(subjects=(str(series / "step0"),)), root=tmp_path / "out")
    with pytest.raises(SpecError, match=r"there is no model or folder '.*geese-none'; give"):
        measure_series(given.edit(subjects=(str(tmp_path / "geese-none"),)), root=tmp_path / "out")


def test_the_command_writes_the_page(world: Path, tmp_path: Path) -> None:
    arguments = [
        "series", world / "series", "--text", world / "texts.jsonl", "--order", world / "order.parquet",
        "--probe", "score", "--root", tmp_path, "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, ["--quiet", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert Path(said["page"]).exists() and said["claims"][0]["verdict"] == "illustrated"
    assert said["healthy"] and len(said["checkpoints"]) == len(STEPS)
    both = CliRunner().invoke(app, ["--quiet", *map(str, [*arguments, "--seen", "texts.jsonl"])])
    assert isinstance(both.exception, SpecError)
