"""What a user gets wrong, end to end: one sentence with the fix, exit code 2, nothing lost on disk."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input.worlds import Say, World, refused


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("sotuu", None, ["'sotuu'", "did you mean 'sotu'?"]),
        ("text/a.txtt", None, ["a.txtt", "did you mean", "text/a.txt'?"]),
        ("far away", None, ["no corpus", "give a path that is there"]),
        (" ", None, ["no name", "give a path"]),
        ("nothing.txt", b" \n", ["nothing.txt", "is empty", "give one that has some"]),
        ("empty", {}, ["empty has no text file", "give a folder that has some"]),
        ("latin.txt", b"ab\xe9cd", ["latin.txt is not UTF-8: byte 2 is 0xe9", "iconv"]),
        ("latin", {"a.txt": b"abc", "b.txt": b"\xff"}, ["b.txt is not UTF-8: byte 0", "iconv"]),
        ("a.jsonl", b'{"text":"a"}\n{"txt":"b"}\n', ["line 2", "it has txt", "text_field"]),
        ("b.jsonl", b'{"text":"a"}\n{"te', ["line 2", "not JSON", "one object a line"]),
        ("c.jsonl", b'{"text":"a"}\n\xff\n', ["c.jsonl is not UTF-8: byte 13"]),
        ("d.jsonl.gz", gzip.compress(b'{"text":"a"}\n', mtime=0)[:-9], ["d.jsonl.gz ends amid", "again"]),
        ("one.txt", b"a short text", ["the set 'test' would be empty", "raise it"]),
    ],
)
def test_a_text_that_is_no_corpus(
    say: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    data: bytes | dict[str, bytes] | None,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("A text.")
    if isinstance(data, bytes):
        (tmp_path / name).write_bytes(data)
    elif data is not None:
        (tmp_path / name).mkdir()
        for file, content in data.items():
            (tmp_path / name / file).write_bytes(content)
    options = ("--tokenizer", "bytes", "--length", 16, "--root", tmp_path / "out")
    refused(say("corpus", "build", name, *options), *parts)
    assert not list(tmp_path.glob("out/corpora/.*.building"))


SPECIAL = {"kind": "special_batch", "base": {"kind": "stream"}, "size": 4, "at": 3}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        # A corpus too short for the schedule says how many tokens are missing.
        (
            {"steps": 1000},
            ["4,000 sequences (64,000 tokens) of the set train", "tokens) are missing", "lower"],
        ),
        ({"treatment": {"kind": "passes", "n_sequences": 9999}}, ["9999 exceeds", "tokens); lower it"]),
        (
            {"corpus.length": 9000, "model.context": 9000},
            ["'test' has", "too few for one sequence", "shorten"],
        ),
        (
            {"treatment": {**SPECIAL, "after": "novel"}},
            ["512 tokens) are missing", "split novel a larger share"],
        ),
        # f outside (0, 1]
        ({"treatment.fraction": 0}, ["fraction = 0 is outside (0, 1]", "0.1"]),
        ({"treatment.fraction": "3/2"}, ["fraction = 3/2 is outside (0, 1]"]),
        ({"treatment.fraction": -0.5}, ["fraction = -1/2 is outside (0, 1]"]),
        ({"treatment.fraction": "half"}, ["'fraction' = 'half'", "write 0.1 or 1/10"]),
        ({"treatment.fraction": True}, ["'fraction' = True", "write 0.1 or 1/10"]),
        # E, S, f, T that contradict
        ({"treatment.n_sequences": 5}, ["E * S = f * T does not hold", "leave one of the three out"]),
        ({"treatment.total": 100}, ["total = 100 contradicts", "48 slots", "leave total out"]),
        ({"treatment.passes": None, "treatment.n_sequences": 99}, ["exceeds the 24 repeated slots", "lower"]),
        (
            {"treatment.fraction": None, "treatment.passes": 9, "treatment.n_sequences": 8},
            ["72 slots", "lower"],
        ),
        ({"treatment.passes": 7}, ["24 repeated slots are not 7 whole passes", "multiple of 7"]),
        ({"treatment.passes": 0.5}, ["passes = 1/2 is below 1"]),
        # a special batch larger than its split
        (
            {"treatment": {**SPECIAL, "size": 999}},
            ["999 sequences exceed the", "the set special", "larger share"],
        ),
        ({"treatment": {**SPECIAL, "at": 99}}, ["step 99 is outside the run of 12 steps", "at least 100"]),
        # an unknown key or name, with the nearest valid one
        ({"stepz": 3}, ["unknown key 'stepz'; did you mean 'steps'?"]),
        ({"treatment.frction": 0.5}, ["RepeatedSubset: unknown key 'frction'; did you mean 'fraction'?"]),
        ({"treatment": {"kind": "passes", "n_sequencs": 8}}, ["unknown key 'n_sequencs'; did you mean"]),
        (
            {"treatment.kind": "repeated_subst"},
            ["unknown kind 'repeated_subst'", "did you mean 'repeated_subset'?"],
        ),
        ({"treatment.kind": None}, ["'treatment' has no 'kind'"]),
        ({"corpus.breaks": "sentenc"}, ["'breaks' = 'sentenc'", "did you mean 'sentence'?"]),
        ({"corpus.source": "sotuu"}, ["no corpus 'sotuu'", "did you mean 'sotu'?"]),
        ({"model.vocab_size": 99}, ["vocab_size = 99 is below the tokenizer's 257", "set it to that"]),
    ],
)
def test_a_spec_with_a_mistake(say: Say, built: World, changes: dict[str, Any], parts: list[str]) -> None:
    before = built.kept()
    refused(say("train", built.write(changes), "--root", built.root), *parts)
    assert built.kept() == before


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b'{"steps": 3,', "not JSON"),
        (b"", "not JSON"),
        (b"[]", "JSON object"),
        (b"\xff\xfe{", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_spec(say: Say, tmp_path: Path, data: bytes, part: str) -> None:
    (tmp_path / "spec.json").write_bytes(data)
    said = say("train", tmp_path / "spec.json", "--root", tmp_path / "out")
    assert said.code == 2
    assert said.stderr.startswith(f"repetita: {tmp_path / 'spec.json'}")
    assert part in said.stderr
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("study", "plan", "double_desent"), ["'double_desent'", "did you mean 'double_descent'?"]),
        (("study", "run", "nothing.py"), ["no study file nothing.py", "defines STUDY"]),
        (("study", "plan", "forgetting", "--scale", "lptop"), ["'lptop'", "did you mean 'laptop'?"]),
        (
            ("study", "report", "forgetting", "--scale", "tiny"),
            ["run it first", "repetita study run forgetting"],
        ),
        (("measure", "nothing"), ["nothing is no run; "]),
        (("corpus", "verify"), ["holds no corpus; build one first"]),
    ],
)
def test_a_name_that_is_not_there(
    say: Say, tmp_path: Path, arguments: tuple[str, ...], parts: list[str]
) -> None:
    refused(say(*arguments, "--root", tmp_path / "out"), *parts)
    assert not list(tmp_path.iterdir())


def test_a_text_that_was_moved_finds_its_run(say: Say, done: World, tmp_path: Path) -> None:
    header = (done.run / "run.json").read_text()
    assert json.loads(header)["spec"]["corpus"]["source"] == "corpus"
    assert str(done.text.parent) not in header
    run = done.run
    shutil.copytree(done.text, tmp_path / "moved" / "elsewhere")
    moved = done.write({"corpus.source": str(tmp_path / "moved" / "elsewhere")})
    said = say("train", moved, "--root", done.root)
    assert "0 of 12 steps trained now" in said.stdout
    assert done.run == run
    # The corpus below the root is found by its content, so that nobody has to know where the text was.
    assert say("measure", run.name, "--root", done.root).code == 0
    shutil.rmtree(done.root / "corpora")
    refused(say("measure", run.name, "--root", done.root), "'corpus'", "--source")
    source = ("--source", tmp_path / "moved" / "elsewhere")
    assert say("measure", run.name, *source, "--root", done.root).code == 0
