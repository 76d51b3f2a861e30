"""Built file by file, a corpus is the one that is built in a stream, whoever makes the parts and whenever."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repetita.corpus import building, input_files, parts, training_sample
from repetita.corpus.assembling import assemble
from repetita.corpus.building import build_shards
from repetita.corpus.by_file import Make, Makers, Share, local_makers
from repetita.corpus.documents import find_source
from repetita.corpus.input_files import bundles, content_of
from repetita.corpus.parts import UNFINISHED, Job, Part
from repetita.corpus.shards import Shards
from repetita.corpus.source import InputFile
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError
from tests.corpus.built import BPE, BYTES, mixed, small

__all__ = ["small"]

N_FILES = 7


def write_files(folder: Path) -> Path:
    """The mixed corpus in several files, one of them empty, one compressed, some rows without a name."""
    folder.mkdir(parents=True)
    (folder / "b").mkdir()
    documents = list(mixed().documents())
    for number in range(N_FILES):
        rows = []
        for place, document in enumerate(documents[number :: N_FILES - 1] if number < N_FILES - 1 else []):
            row: dict[str, Any] = {"text": document.text, "date": document.date}
            rows += [row | {"name": document.name} if place % 2 else row, {"text": " "}]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if number == 1:
            (folder / "b" / "1.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (folder / f"{number}.jsonl").write_bytes(data)
    return folder


@pytest.fixture
def files(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, each of which is a part."""
    monkeypatch.setattr(input_files, "BUNDLE_BYTES", 1)
    return write_files(tmp_path / "files")


def build(files: Path, name: str, spec: TokenizerSpec = BYTES, **told: Any) -> Shards:
    """Built into a folder beside the files; by one process in a stream unless makers are given."""
    source = find_source(str(files))
    return build_shards(files.parent / "cache" / name, source=source, tokenizer=spec, **told)


def here(order: Sequence[int] | None = None, stop: int | None = None) -> tuple[Makers, list[Part]]:
    """Makers that do jobs in this process, in an order, up to a kill; and the parts that they answered."""
    answered: list[Part] = []

    @contextmanager
    def opened(_: Path) -> Iterator[Make]:
        def make(jobs: Sequence[str]) -> Iterator[tuple[int, str]]:
            places = [place for place in order or () if place < len(jobs)]
            for place in places or range(len(jobs)):
                if len(answered) == stop:
                    raise KeyboardInterrupt
                answer = parts.make(jobs[place])
                answered.append(Part.from_json(answer))
                yield place, answer

        yield make

    return opened, answered


def folder_of_parts(files: Path) -> Path:
    (folder,) = (files.parent / "cache").glob(".*.parts")
    return folder


def same(one: Shards, other: Shards) -> bool:
    """Whether two corpora are equal to the byte, their manifests too."""
    return (one.path / "manifest.json").read_bytes() == (other.path / "manifest.json").read_bytes()


@pytest.mark.parametrize("spec", [BYTES, BPE], ids=["bytes", "bpe"])
def test_files_and_workers_change_nothing(files: Path, spec: TokenizerSpec) -> None:
    whole = build(files, "whole", spec, workers=1)
    for n in (1, 2, 3):
        assert same(build(files, f"by{n}", spec, makers=local_makers(n)), whole)
    assert sorted(path.name for path in (files.parent / "cache").iterdir() if path.is_dir()) == [
        "by1",
        "by2",
        "by3",
        "whole",
    ]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(N_FILES)), limit=st.sampled_from([None, 1, 25, 1000]))
def test_the_order_in_which_files_are_done_changes_nothing(
    files: Path, order: list[int], limit: int | None
) -> None:
    cache = files.parent / "cache"
    shutil.rmtree(cache / "by", ignore_errors=True)
    whole = build(files, f"whole{limit}", limit_documents=limit)
    assert same(build(files, "by", makers=here(order)[0], limit_documents=limit), whole)


def test_a_tokenizer_is_trained_on_the_same_choice(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_sample, "TRAINING_BYTES", 9000)
    whole = build(files, "whole", BPE)
    assert same(build(files, "by", BPE, makers=here()[0]), whole)


@pytest.mark.parametrize("spec", [BYTES, BPE], ids=["bytes", "bpe"])
def test_a_build_stopped_after_any_file_goes_on(files: Path, spec: TokenizerSpec) -> None:
    whole = build(files, "whole", spec)
    n_jobs = N_FILES if spec is BYTES else 2 * N_FILES
    for stop in range(n_jobs):
        shutil.rmtree(files.parent / "cache" / "by", ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            build(files, "by", spec, makers=here(stop=stop)[0])
        makers, answered = here()
        assert same(build(files, "by", spec, makers=makers), whole)
        assert sum(part.again for part in answered) == stop
        assert not list((files.parent / "cache").glob(".*.parts"))


def test_what_was_begun_file_by_file_goes_on_so(files: Path) -> None:
    whole = build(files, "whole")
    with pytest.raises(KeyboardInterrupt):
        build(files, "by", makers=here(stop=3)[0])
    told: list[str] = []
    shards = build(files, "by", workers=1, progress=lambda stage, _: told.append(stage))
    assert same(shards, whole)
    assert "putting the parts together" in told


def test_only_a_file_that_changed_is_read_again(files: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(files, "before", makers=here(stop=N_FILES - 1)[0])
    changed = files / "2.jsonl"
    changed.write_text(changed.read_text() + json.dumps({"text": "A line more."}) + "\n")
    os.utime(files / "3.jsonl", (1, 1))  # Another time alone is no change.
    makers, answered = here()
    shards = build(files, "after", makers=makers)
    assert sum(not part.again for part in answered) == 2, "the one that was missing, and the one that changed"
    assert same(shards, build(files, "whole"))


@pytest.mark.parametrize("harm", ["byte", "cut", "gone", "manifest"])
def test_a_damaged_part_is_made_again(files: Path, harm: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(files, "by", makers=here(stop=4)[0])
    part = next(path for path in folder_of_parts(files).iterdir() if path.is_dir())
    file = part / ("part.json" if harm == "manifest" else "tokens.bin")
    data = bytearray(file.read_bytes())
    if harm == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data[:-1] if harm == "cut" else data)
    makers, answered = here()
    assert same(build(files, "by", makers=makers), build(files, "whole"))
    assert sum(part.again for part in answered) == 3


@pytest.mark.parametrize("name", ["tokens.bin", "sentences.bin", "documents.bin"])
@pytest.mark.parametrize("harm", [lambda data: data[::-1], lambda data: data[:-1]], ids=["changed", "cut"])
def test_a_part_damaged_while_the_build_runs_is_found(
    files: Path, monkeypatch: pytest.MonkeyPatch, name: str, harm: Callable[[bytes], bytes]
) -> None:
    def harmed(pairs: Any, **told: Any) -> Any:
        file = pairs[2].encoded / name
        file.write_bytes(harm(file.read_bytes()))
        return assemble(pairs, **told)

    with monkeypatch.context() as patch:
        patch.setattr("repetita.corpus.by_file.assemble", harmed)
        with pytest.raises(CorpusError, match=rf"{name}, a part .* was damaged .* build again"):
            build(files, "by", makers=here()[0])
    makers, answered = here()
    assert same(build(files, "by", makers=makers), build(files, "whole"))
    assert sum(not part.again for part in answered) == 1


def test_a_file_that_cannot_be_read_is_named_and_the_others_stay(files: Path) -> None:
    (files / "2.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(CorpusError, match=r"2\.jsonl, line 2: not JSON"):
        build(files, "by", makers=here()[0])
    with pytest.raises(CorpusError, match=r"2\.jsonl, line 2: not JSON"):
        build(files, "by", makers=local_makers(2))
    kept = [path for path in folder_of_parts(files).iterdir() if (path / "part.json").exists()]
    assert not list(folder_of_parts(files).glob(f"{UNFINISHED}*"))
    (files / "2.jsonl").write_text('{"text": "a"}\n')
    makers, answered = here()
    assert same(build(files, "by", makers=makers), build(files, "whole"))
    assert 0 < sum(part.again for part in answered) <= len(kept)


def test_where_no_file_can_be_read_nothing_stays(files: Path) -> None:
    for file in files.rglob("*.jsonl*"):
        file.write_bytes(b"\xff")
    with pytest.raises(CorpusError, match="jsonl"):
        build(files, "by", makers=here()[0])
    assert not [path for path in (files.parent / "cache").iterdir() if path.is_dir()]


def test_a_file_that_changes_under_the_build_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touching(file: InputFile) -> str:
        told = content_of(file)
        if file.path.endswith("3.jsonl"):
            os.utime(file.path, (1, 1))
        return told

    monkeypatch.setattr("repetita.corpus.parts.content_of", touching)
    with pytest.raises(CorpusError, match=r"3\.jsonl was changed while the corpus was built; build again"):
        build(files, "by", makers=here()[0])


def test_a_node_that_does_not_see_the_parts_is_told_so(tmp_path: Path) -> None:
    job = Job(str(tmp_path), text="x", tokenizer=str(tmp_path / "tokenizer-1.json"))
    with pytest.raises(CorpusError, match=r"cannot read .*tokenizer-1\.json: No such file .* machines"):
        Part.from_json(parts.make(job.as_json())).check()


def test_progress_counts_files_and_tokens(files: Path) -> None:
    told: list[tuple[str, float]] = []
    shards = build(files, "by", makers=here()[0], progress=lambda stage, share: told.append((stage, share)))
    shares = [share for stage, share in told if stage == "tokenizing" and isinstance(share, Share)]
    assert len(shares) == N_FILES
    assert shares == sorted(shares)
    assert shares[0].words.startswith(f"1 of {N_FILES} files, ")
    assert shares[0].words.endswith(" left")
    assert shares[-1].words == f"{N_FILES} of {N_FILES} files, {shards.manifest['n_tokens']:,} tokens"


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 3 << 20), min_size=1, max_size=40), st.integers(0, 39), st.integers(0, 9 << 20)
)
def test_bundles_keep_the_order_and_their_ends(sizes: list[int], place: int, size: int) -> None:
    def named(sizes: list[int]) -> list[InputFile]:
        return [InputFile("text", f"/{i}", f"{i}", n_bytes=size) for i, size in enumerate(sizes)]

    made = bundles(named(sizes))
    assert [file for bundle in made for file in bundle] == named(sizes)
    assert all(len(bundle) == 1 for bundle in made for file in bundle if file.n_bytes >= 16 << 20)
    place %= len(sizes)
    other = bundles(named([*sizes[:place], size, *sizes[place + 1 :]]))
    names = [{tuple(file.name for file in bundle) for bundle in one} for one in (made, other)]
    assert len(names[0] - names[1]) <= 2 and len(names[1] - names[0]) <= 2


def test_whether_a_build_goes_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def enough(*sizes: int, workers: int = 4) -> bool:
        files = [InputFile("text", f"/{i}", f"{i}", n_bytes=size << 20) for i, size in enumerate(sizes)]
        return building._enough(files, workers)

    assert enough(20, 20, 20, 20)
    assert not enough(20, 20, 20, 40), "one file would keep one worker busy when the others are done"
    assert enough(20, 20, 20, 40, workers=1)
    assert not enough(500)
    assert not enough(16), "little text is read at once"


PROGRAM = """
import sys
from pathlib import Path
from repetita.corpus import by_file, input_files
from repetita.corpus.building import build_shards
from repetita.corpus.documents import find_source
from tests.corpus.built import BPE

input_files.BUNDLE_BYTES = 1
build_shards(
    Path(sys.argv[1]),
    source=find_source(sys.argv[2]),
    tokenizer=BPE,
    makers=by_file.local_makers(2),
    progress=lambda stage, share: print(stage, flush=True),
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.ci), signal.SIGINT])
def test_a_killed_process_leaves_parts_that_count(files: Path, how: signal.Signals) -> None:
    whole = build(files, "whole", BPE)
    for n_lines in (2, 7, 10, 13, 17):
        path = files.parent / "cache" / f"killed{n_lines}"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(files)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        for _ in range(n_lines):
            process.stdout.readline()
        time.sleep(0.003)
        process.send_signal(how)
        process.communicate()
        makers, _ = here()
        assert same(build(files, path.name, BPE, makers=makers), whole)
        shutil.rmtree(path)
    assert not list((files.parent / "cache").glob(".*.parts"))


def test_jobs_and_parts_travel_as_strings() -> None:
    hub = InputFile("hub", "hf:a/b", "", piece=("c" * 40, None, "train", 1, 3))
    job = Job("/parts", (hub, InputFile("text", "/x", "x")), take=3, tokenizer="/t")
    assert Job.from_json(job.as_json()) == job
    part = Part("name", 1, 2, 3, lossless=False)
    assert Part.from_json(part.as_json()) == part
