"""Damaged shards, checkpoints, journals and headers, end to end: refused, or passed over safely."""

import json
import shutil

import pytest

from repetita.journal.folder import read_journal
from tests.bad_input.worlds import HARM, Say, World, flip, refused
from tests.train.conftest import same

FILES = ("tokens.bin", "sentences.bin", "documents.bin", "documents.txt", "tokenizer.json", "manifest.json")


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_shard(say: Say, done: World, name: str, harm: str) -> None:
    HARM[harm](done.corpus / name)
    before = done.kept()
    said = say("train", done.write({"seed": 1}), "--root", done.root)
    refused(said, name, "delete the folder", "build the corpus again")
    assert done.kept() == before


def test_verify_names_the_corpus(say: Say, done: World) -> None:
    flip(done.corpus / "tokens.bin")
    said = say("corpus", "verify", "--root", done.root)
    refused(said, "1 of 1 corpora", done.corpus.name, "build them again")
    assert "tokens.bin does not match" in said.stdout
    refused(say("measure", done.run.name, "--root", done.root), "tokens.bin", "build the corpus again")


@pytest.mark.parametrize(
    ("name", "harm", "step"),
    [
        ("checkpoints/00000009/model.safetensors", "flipped", 8),
        ("checkpoints/00000009/optimizer.safetensors", "cut", 8),
        ("checkpoints/00000009/model.safetensors", "gone", 8),
        ("checkpoints/00000009/position.json", "flipped", 8),
        ("steps.jsonl", "flipped", 0),
        ("measurements.jsonl", "cut", 0),
        ("measurements.jsonl", "gone", 0),
        ("items", "flipped", 0),
    ],
)
def test_a_stopped_run_passes_over_what_is_damaged(
    say: Say, stopped: World, done_once: World, name: str, harm: str, step: int
) -> None:
    file = stopped.run / name
    HARM[harm](min(file.iterdir()) if file.is_dir() else file)
    said = say("train", stopped.write(), "--root", stopped.root)
    assert said.code == 0, said
    first = next(read_journal(stopped.run, journal="events"))
    assert first["kind"] == "damaged"
    assert first["message"].endswith(f"; the run goes on from step {step}")
    assert str(stopped.root) not in first["message"]
    assert same(stopped.run, done_once.run, step=12)


def test_a_position_that_is_no_object(say: Say, stopped: World, done_once: World) -> None:
    for file in stopped.run.glob("checkpoints/*/position.json"):
        file.write_text("[]")
    assert say("train", stopped.write(), "--root", stopped.root).code == 0
    assert same(stopped.run, done_once.run, step=12)


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
@pytest.mark.parametrize("name", ["measurements.jsonl", "checkpoints/00000012/model.safetensors"])
def test_a_finished_run_that_is_damaged(say: Say, done: World, name: str, harm: str) -> None:
    HARM[harm](done.run / name)
    before = done.kept()
    verb = ("measure", done.run.name) if "model" in name else ("train", done.write())
    refused(say(*verb, "--root", done.root), name, "delete the", "run")
    assert done.kept() == before


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 1}', '{"schema": 1, "hot": 2}', "{\n"])
@pytest.mark.parametrize("name", ["run.json", "done"])
def test_a_header_that_is_none(say: Say, done: World, name: str, text: str) -> None:
    (done.run / name).write_text(text)
    before = done.kept()
    refused(say("train", done.write(), "--root", done.root), f"{name} is damaged", "delete the run's folder")
    assert done.kept() == before


def test_a_bit_of_the_header(say: Say, done: World) -> None:
    size = (done.run / "run.json").stat().st_size
    original = (done.run / "run.json").read_bytes()
    for place in range(3, size - 3, size // 40):
        flip(done.run / "run.json", place / size)
        changed = (done.run / "run.json").read_bytes()
        try:
            equal = json.loads(changed) == json.loads(original)
        except ValueError:
            equal = False
        if not equal:
            refused(say("measure", done.run.name, "--root", done.root), "run.json is damaged")
        (done.run / "run.json").write_bytes(original)


@pytest.mark.parametrize("how", ["done", "unfinished"])
def test_a_folder_of_another_run(say: Say, done: World, how: str) -> None:
    mine = done.run
    assert say("train", done.write({"seed": 1}), "--root", done.root).code == 0
    (other,) = (path for path in (done.root / "runs").iterdir() if path != mine)
    shutil.rmtree(mine)
    other.rename(mine)
    if how == "unfinished":
        (mine / "done").unlink()
    before = done.kept()
    refused(say("train", done.write(), "--root", done.root), "the folder holds run", "move it away")
    assert done.kept() == before
