"""A data set of the hub that has several files is, read file by file, what it is as one stream."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import local_hub
from tests.corpus.local_hub import NAME

PROGRAM = """
import json, sys
from pathlib import Path
from repetita.corpus.building import build_shards
from repetita.corpus.by_file import local_makers
from repetita.corpus.documents import find_source
from repetita.corpus.tokenizer import TokenizerSpec

source, spec = find_source(sys.argv[1], subset="en"), TokenizerSpec(kind="bytes")
ways = {"stream": {"workers": 8}, "by file": {"makers": local_makers(1)}}
answers = {"files": len(source.files())}
for limit in (None, 33):
    for name, told in ways.items():
        path = Path(f"{name} {limit}")
        shards = build_shards(path, source=source, tokenizer=spec, limit_documents=limit, **told)
        answers[str(path)] = [(path / "manifest.json").read_text(), list(shards.documents.names)]
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_names_and_numbers_are_those_of_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = b"    path:\n    - en/train.jsonl\n    - en/more.jsonl\n"
    card = local_hub.FILES["README.md"].replace(b"    path: en/train.jsonl\n", listed)
    assert listed in card
    files = {"README.md": card}
    for name, n, blank in (("en/train.jsonl", 40, None), ("en/more.jsonl", 30, " ")):
        rows = [
            {"text": f"{name} {i}" if i % 4 else blank, "title": f"#T{i}" if i % 3 else None}
            for i in range(n)
        ]
        files[name] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for name, data in files.items():
        monkeypatch.setitem(local_hub.FILES, name, data)
    with local_hub.local_hub() as (address, _):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, f"hf:{NAME}"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": address, "PYTHONWARNINGS": "ignore"},
            cwd=tmp_path,
        )
    answers = json.loads(done.stdout)
    assert answers.pop("files") == 2
    for limit in (None, 33):
        stream = answers[f"stream {limit}"]
        assert answers[f"by file {limit}"] == stream
        assert stream[1][:3] == ["#T1", "#T2", "4"]
    assert "50" in answers["stream None"][1], "the tenth row of the second file"
