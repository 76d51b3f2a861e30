"""An audit measures each text once, under the very model's key, and its groups are what probes say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.corpus.windows import ReadingRule, Windows
from repetita.errors import CorpusError, SpecError
from repetita.measure.membership import MembershipProbe
from repetita.measure.probe import EvalSet
from repetita.model import memory
from repetita.model.pretrained import open_pretrained
from repetita.study import audit as auditing
from repetita.study.audit import Audit, Standing, run_audit
from repetita.study.audit_probes import probes_of
from repetita.study.audit_rows import TEXTS, text_rows
from repetita.study.audit_table import read_store
from repetita.study.audit_texts import distinct, read_texts
from tests.model.strangers import stranger
from tests.model.test_pretrained_tokenizing import masked
from tests.study.audited import GEESE, asked, lines, model_at, value


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_at(tmp_path_factory.mktemp("models") / "geese")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return lines(tmp_path / "geese.jsonl", GEESE)


def test_groups_are_what_the_probes_say_of_them(model: Path, texts: Path, tmp_path: Path) -> None:
    names = ("score", "unit_length", "extraction", "membership", "probabilistic", "in_context")
    audit = asked(model, texts, probes=names, indices=(2, 20))
    audited = run_audit(audit, root=tmp_path / "out")
    subject = open_pretrained(model)
    documents = [one.document for one in distinct(read_texts((str(texts),)))]
    windows = Windows(documents, tokenizing=subject.tokenizing, context=subject.context)
    sets = {TEXTS: EvalSet.whole(TEXTS, sequences=windows)}
    found = 0
    for probe in probes_of(audit):
        prefix = "membership_" if isinstance(probe, MembershipProbe) else ""
        for reading in probe.measure(subject, sets):
            if (
                "shuffled" in reading.metric
                or "weighted" in reading.metric
                or reading.metric == "loss_by_index"
            ):
                continue
            expected = None if reading.value is None else pytest.approx(reading.value, rel=1e-5)
            assert value(audited, prefix + reading.metric) == expected
            found += 1
    assert found == len(audited.by_group) - 1 > 20


def test_loss_is_that_of_the_library(model: Path, texts: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    audited = run_audit(asked(model, texts, limit=1), root=tmp_path / "out")
    library: Any = AutoModelForCausalLM.from_pretrained(str(model))
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    ids = tokenizer(
        "<s>" + json.loads(texts.read_text().splitlines()[0])["text"], return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        logits = library(input_ids=ids).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    assert value(audited, "loss") == pytest.approx(float(losses.mean()), rel=1e-5)
    assert value(audited, "bits_per_byte") == pytest.approx(float(losses.sum()) / np.log(2) / 21, rel=1e-5)
    assert value(audited, "memorized") == float((logits.argmax(1) == ids[0, 1:]).double().mean())


def test_nothing_is_measured_twice(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle costs the block that was being measured, and no other."""
    monkeypatch.setattr(auditing, "BLOCK_TEXTS", 2)
    straight = run_audit(asked(model, texts), root=tmp_path / "straight")
    whole, seen = text_rows, list[str]()

    def counted(subject: Any, probe: Any, /, *, windows: Windows) -> Any:
        if probe.name == "score":
            if len(seen) == 4:
                raise KeyboardInterrupt
            seen.extend(one.name for one in windows.texts)
        return whole(subject, probe, windows=windows)

    monkeypatch.setattr(auditing, "text_rows", counted)
    with pytest.raises(KeyboardInterrupt):
        run_audit(asked(model, texts), root=tmp_path / "out")
    assert read_store(tmp_path / "out")["text"].n_unique() == 4
    seen.append("over the place where it died")
    again = run_audit(asked(model, texts), root=tmp_path / "out")
    assert sorted(seen[:4] + seen[5:]) == [f"g{i}" for i in range(6)]
    assert [one.measured for one in again.subjects] == [2]
    assert again.by_text.equals(straight.by_text)
    assert again.by_group.equals(straight.by_group)


def test_another_probe_or_text_measures_only_what_is_new(model: Path, texts: Path, tmp_path: Path) -> None:
    first = run_audit(
        asked(model, texts, limit=2).edit(probes=("score",), prompts=(32,), suffixes=(32,)), root=tmp_path
    )
    parts = {file: file.read_bytes() for file in first.subjects[0].folder.iterdir() if "parquet" in file.name}
    more = run_audit(asked(model, texts), root=tmp_path)
    assert more.subjects[0].measured == 6
    assert all(file.read_bytes() == data for file, data in parts.items())
    assert more.by_text.filter(pl.col("metric") == "loss").height == 6


def test_another_model_of_the_same_name_is_another_key(model: Path, texts: Path, tmp_path: Path) -> None:
    other = model_at(tmp_path / "other" / "geese", "gpt2")
    audit = asked(model, texts, limit=2).edit(subjects=(str(model), str(other)))
    audited = run_audit(audit, root=tmp_path / "out")
    assert len({one.id for one in audited.subjects}) == len({one.folder for one in audited.subjects}) == 2
    losses = audited.by_group.filter(pl.col("metric") == "loss")["value"].to_list()
    assert len(losses) == 2
    assert losses[0] != losses[1]
    again = run_audit(audit.edit(subjects=(str(model),)), root=tmp_path / "out")
    assert value(again, "loss") == losses[0]
    assert again.subjects[0].measured == 0


def test_another_rule_is_another_key_and_is_said(model: Path, texts: Path, tmp_path: Path) -> None:
    said = [
        run_audit(asked(model, texts, rule=rule, limit=3), root=tmp_path)
        for rule in (ReadingRule(), ReadingRule(bos="never"), ReadingRule(window=32, stride=16))
    ]
    assert [one.subjects[0].measured for one in said] == [3, 3, 3]
    assert len({value(one, "loss") for one in said}) == 3
    assert len({one.subjects[0].rule for one in said}) == 3
    assert "behind the start token 0, first token scored" in said[0].subjects[0].rule
    assert "without a start token, first token not scored" in said[1].subjects[0].rule


def test_sixteen_bits_are_another_key_and_the_guard_says_what_they_change(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    exact, half = (
        run_audit(asked(model, texts, dtype=dtype, limit=3), root=tmp_path)
        for dtype in ("float32", "bfloat16")
    )
    assert value(exact, "loss") != value(half, "loss")
    assert set(half.by_group["dtype"]) == {"bfloat16"}
    right, rough = exact.subjects[0].guard, half.subjects[0].guard
    assert right.tokens == rough.tokens > 50
    assert right.flips == 0
    assert right.largest_difference < 1e-4 < rough.largest_difference
    assert right.near_ties == rough.near_ties, "both are of the model in float32"
    known = run_audit(asked(model, texts, dtype="bfloat16", limit=3), root=tmp_path)
    assert known.subjects[0].guard == rough


def test_a_batch_that_does_not_fit_is_halved_and_recorded(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_audit(asked(model, texts), root=tmp_path / "whole")
    fits = memory.Batches._fits

    def small(self: Any, part: slice, work: Any, *, length: int) -> bool:
        def refusing(rows: slice) -> None:
            if rows.stop - rows.start > 2:
                raise MemoryError
            work(rows)

        return fits(self, part, refusing, length=length)

    monkeypatch.setattr(memory.Batches, "_fits", small)
    halved = run_audit(asked(model, texts), root=tmp_path / "halved")
    assert halved.subjects[0].record["halvings"]
    assert 0 < max(halved.by_text["halvings"]) <= len(halved.subjects[0].record["halvings"])
    for metric in ("loss", "memorized", "extractable_4_6", "membership_min_k_20"):
        assert value(halved, metric) == pytest.approx(value(whole, metric), rel=1e-5)


def test_a_masked_text_is_the_same_in_any_company(tmp_path: Path, texts: Path) -> None:
    folder = tmp_path / "bert"
    stranger("bert").save_pretrained(str(folder))
    masked(folder)
    file = tmp_path / "words.jsonl"
    rows = ["two geese are geese !", "geese are two", "are two geese two ! geese"]
    file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    alone, all_ = (
        run_audit(Audit(subjects=(str(folder),), texts=(str(file),), limit=limit), root=tmp_path / str(limit))
        for limit in (1, 3)
    )
    same = all_.by_text.filter(pl.col("text").is_in(alone.by_text["text"].to_list()))
    assert same.drop("text_name").equals(alone.by_text.drop("text_name"))
    refused = alone.by_group.filter(pl.col("metric") == "extractable_32_32").row(0, named=True)
    assert refused["value"] is None
    assert "a masked model continues no prompt" in refused["note"]


def test_whole_group_probes_are_kept_by_the_group(model: Path, texts: Path, tmp_path: Path) -> None:
    more = tmp_path / "letters.txt"
    more.write_text("The quick brown fox jumps over the lazy dog. 0123456789 ABCDEFG")
    audit = Audit(subjects=(str(model),), texts=(str(texts), str(more)), probes=("score", "copying"))
    audited = run_audit(audit, root=tmp_path)
    losses = audited.by_group.filter(pl.col("metric") == "copying_loss")
    assert set(losses["group"]) == {"letters.txt"}
    assert losses["value"].is_not_null().any()
    refused = audited.by_group.filter(pl.col("metric") == "copying").row(0, named=True)
    assert refused["group"] == "geese.jsonl"
    assert "neither too common nor too rare" in refused["note"]
    assert run_audit(audit, root=tmp_path).by_group.equals(audited.by_group)
    assert "copying_loss" not in set(audited.by_text["metric"])


def test_parts_of_speech_of_texts_that_were_only_read(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "letters.txt"
    text.write_text("I saw 7 geese and 8 swans. A goose is a bird. " * 5)
    audit = Audit(subjects=(str(model),), texts=(str(text),), probes=("score", "parts_of_speech"))
    found = run_audit(audit, root=tmp_path).by_group
    by_probe = found.filter(pl.col("metric") == "memorized")["value"].to_list()
    assert len(by_probe) == 2
    assert by_probe[0] == pytest.approx(by_probe[1])
    numerals = found.filter(pl.col("metric") == "recall_numeral").row(0, named=True)
    assert numerals["n"] <= 10
    assert found.filter(pl.col("metric") == "parts_of_speech").height == 1


def test_progress_says_what_is_left(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "BLOCK_TEXTS", 2)
    said = list[Standing]()
    run_audit(asked(model, texts), root=tmp_path, watch=said.append)
    assert [one.done for one in said] == [2, 4, 6]
    assert said[-1].share == 1
    assert said[-1].seconds_left == 0
    assert (said[0].seconds_left or 0) > 0


def test_texts_of_every_kind_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.txt").write_text("one, two\n")
    (tmp_path / "rows.csv").write_text('body,id\n"a, b",x\n"two\nlines",y\n')
    pl.DataFrame({"body": ["p", "q"]}).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("one, two\n")
    names = ("one.txt", "rows.csv", "rows.parquet", "folder")
    found = read_texts(tuple(str(tmp_path / name) for name in names), text_field="body")
    assert [(one.group, one.text) for one in found] == [
        ("one.txt", "one, two\n"), ("rows.csv", "a, b"), ("rows.csv", "two\nlines"),
        ("rows.parquet", "p"), ("rows.parquet", "q"), ("folder", "one, two\n"),
    ]  # fmt: skip
    assert found[0].sha256 == found[5].sha256
    assert [one.name for one in found[1:3]] == ["x", "y"]
    monkeypatch.chdir(tmp_path / "folder")
    assert [one.group for one in read_texts((".",))] == ["folder"]
    with pytest.raises(CorpusError, match="given twice"):
        read_texts((names[0], names[0]))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"probes": ("score", "score")}, "probes names 'score' twice"),
        ({"probes": ("scor",)}, "did you mean 'score'"),
        ({"probes": ("canaries",)}, "needs the key"),
        ({"top_k": 5}, "top_k has no effect without the probe probabilistic"),
        ({"probes": ("score",), "prompts": (8,)}, "prompts has no effect"),
        ({"subjects": ("a", "a")}, "subjects names 'a' twice"),
    ],
)
def test_an_audit_that_contradicts_itself(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        Audit(**({"subjects": ("a",), "texts": ("b",)} | values))


def test_a_series_is_measured_by_step(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "goslings"
    for step, n_inner in ((1000, 40), (0, 48)):
        model_at(folder / f"checkpoint-{step}", "gpt2", n_inner=n_inner)
    audited = run_audit(
        Audit(subjects=(str(folder),), texts=(str(texts),), probes=("score",), limit=2), root=tmp_path / "out"
    )
    assert [one.label for one in audited.subjects] == ["goslings@checkpoint-0", "goslings@checkpoint-1000"]
    losses = audited.by_group.filter(pl.col("metric") == "loss")
    assert losses["step"].to_list() == [0, 1000]
    assert losses["value"].n_unique() == 2
    alone = Audit(subjects=(str(folder / "checkpoint-0"),), texts=(str(texts),), probes=("score",), limit=2)
    assert run_audit(alone, root=tmp_path / "out").subjects[0].measured == 0
    with pytest.raises(SpecError, match="checkpoint-0' twice"):
        run_audit(alone.edit(subjects=(str(folder), str(folder / "checkpoint-0"))), root=tmp_path / "out")


def test_heads_of_a_model_that_does_not_show_them(tmp_path: Path) -> None:
    texts = tmp_path / "letters.txt"
    texts.write_text("The quick brown fox jumps over the lazy dog. 0123456789 ABCDEFG")
    bloom = model_at(tmp_path / "bloom", "bloom", max_position_embeddings=128)
    audit = Audit(subjects=(str(bloom),), texts=(str(texts),), probes=("score", "heads"))
    refused = run_audit(audit, root=tmp_path).by_group.filter(pl.col("value").is_null())
    assert len(refused) == 1
    assert "not applicable" in refused["note"][0]


def test_numbers_that_overflow_are_said(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from repetita.model.answering import Answering

    score = Answering.score

    def overflown(self: Any, rows: Any) -> Any:
        found = score(self, rows)
        return found._replace(loss=np.where(rows.scored, np.float32("nan"), found.loss))

    monkeypatch.setattr(Answering, "score", overflown)
    audited = run_audit(Audit(subjects=(str(model),), texts=(str(texts),), probes=("score",)), root=tmp_path)
    row = audited.by_group.filter(pl.col("metric") == "loss").row(0, named=True)
    assert (row["value"], row["n"]) == (None, 0)
    assert "overflow" in row["note"]


def test_texts_of_one_two_and_very_many_tokens(model: Path, tmp_path: Path) -> None:
    texts = ["a", "ab", "abc " * 100]
    rule = ReadingRule(bos="never")
    audited = run_audit(asked(model, lines(tmp_path / "geese.jsonl", texts), rule=rule), root=tmp_path)
    losses = audited.by_text.filter(pl.col("metric") == "loss").sort("text_name")
    assert losses["n"].to_list() == [0, 1, 399]
    assert losses["note"].to_list() == ["nothing to measure in this text", "", ""]
    assert losses["value"].is_null().to_list() == [True, False, False]
    assert audited.by_text.filter(pl.col("metric") == "extractable_4_6").sort("text_name")["n"].to_list()[
        :2
    ] == [0, 0]
