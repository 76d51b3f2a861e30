"""Building a corpus against the tokenizers library alone: time in interleaved rounds, memory at a gigabyte.

    python -m benchmarks.corpus_build [--tokenizer tokenizer.json] [--megabytes 48] [--rounds 7]
    python -m benchmarks.corpus_build --memory [--megabytes 1000]

The first compares our whole build from a JSONL file (read, lay out, encode, find the ends of sentences,
write, hash, verify) with `encode_batch_fast` of the library over the same documents in memory, both on all
cores and with the same vocabulary. The second builds a file of one gigabyte and samples the memory of the
whole tree of processes (PSS, which counts shared pages once). The text is that of the built-in corpora,
repeated with salt.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.rounds import say
from repetita.corpus.building import build_shards
from repetita.corpus.documents import find_source
from repetita.corpus.pretrained_tokenizer import hf_tokenizer_spec
from repetita.corpus.tokenizer import TokenizerSpec, train_tokenizer

VOCABULARY = 32_768
SAMPLE_SECONDS = 0.2


def texts() -> list[str]:
    """The documents of the built-in corpora."""
    return [document.text for name in ("sotu", "python-stdlib") for document in find_source(name).documents()]


def salted(megabytes: float) -> Iterator[str]:
    """Their texts again and again, each with a line of its own, until there is so much."""
    originals, size = texts(), 0
    for turn in count():
        for number, text in enumerate(originals):
            if size >= megabytes * 1e6:
                return
            again = f"Copy {turn} of document {number}.\n\n{text}"
            size += len(again.encode())
            yield again


def write_jsonl(path: Path, megabytes: float) -> int:
    """A JSONL file of about so much text; the bytes of text in it."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in salted(megabytes):
            size += len(text.encode())
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return size


def vocabulary(folder: Path) -> tuple[Path, float]:
    """A byte-level BPE trained on the originals, as a file of the library; and the seconds it took."""
    start = time.perf_counter()
    trained = train_tokenizer(TokenizerSpec(vocab_size=VOCABULARY), texts=texts())
    seconds = time.perf_counter() - start
    path = folder / "tokenizer.json"
    path.write_text(trained.to_json(), encoding="utf-8")
    return path, seconds


def timed(folder: Path, tokenizer: Path, megabytes: float, n_rounds: int) -> dict[str, Any]:
    """MB/s of both, and the ratio."""
    from tokenizers import Tokenizer

    source = folder / "documents.jsonl"
    size = write_jsonl(source, megabytes)
    documents = list(salted(megabytes))
    spec = hf_tokenizer_spec(str(tokenizer))

    def ours() -> float:
        start = time.perf_counter()
        build_shards(folder / "built", source=find_source(str(source)), tokenizer=spec)
        seconds = time.perf_counter() - start
        shutil.rmtree(folder / "built")
        return size / 1e6 / seconds

    def library() -> float:
        fresh = Tokenizer.from_file(str(tokenizer))
        start = time.perf_counter()
        fresh.encode_batch_fast(documents, add_special_tokens=False)
        return size / 1e6 / (time.perf_counter() - start)

    compared = rounds.interleaved(
        {"build": ours, "library": library},
        rounds=n_rounds,
        on_round=lambda number, values: say(
            f"round {number + 1}: " + ", ".join(f"{name} {value:.2f} MB/s" for name, value in values.items())
        ),
    )
    ratio = compared.ratio("build", to="library")
    middle = {name: compared.middle(name) for name in ("build", "library")}
    say(f"build {middle['build']:.2f} MB/s, library {middle['library']:.2f} MB/s")
    say(f"ratio {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
    return {
        "megabytes": size / 1e6,
        "documents": len(documents),
        "vocab_size": spec.vocab_size,
        "megabytes_per_second": {name: float(f"{value:.4g}") for name, value in middle.items()},
        "rounds": {name: [float(f"{v:.4g}") for v in values] for name, values in compared.values.items()},
        "ratio": rounds.estimate(ratio),
    }


def tree(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def pss(process: int) -> int:
    """Proportional set size in bytes; 0 of a process that is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def memory(folder: Path, tokenizer: Path, megabytes: float) -> dict[str, Any]:
    """Peak memory of a whole build in processes of its own, and the time it takes."""
    source = folder / "large.jsonl"
    say(f"writing {megabytes:.0f} MB of text")
    size = write_jsonl(source, megabytes)
    command = [
        sys.executable,
        "-m",
        "benchmarks.corpus_build",
        "--build",
        str(source),
        str(tokenizer),
        str(folder / "large"),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    peak = at_once = 0
    while process.poll() is None:
        parts = [pss(one) for one in tree(process.pid)]
        peak, at_once = max(peak, sum(parts)), max(at_once, len([part for part in parts if part]))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"the build ended with status {process.returncode}")
    say(f"{size / 1e6:.0f} MB in {seconds:.0f} s ({size / 1e6 / seconds:.2f} MB/s)")
    say(f"peak {peak / 2**20:.0f} MiB in {at_once} processes")
    return {
        "megabytes": size / 1e6,
        "seconds": float(f"{seconds:.4g}"),
        "peak_mebibytes": round(peak / 2**20),
        "processes": at_once,
        "vocab_size": hf_tokenizer_spec(str(tokenizer)).vocab_size,
    }


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; else one is trained")
    parser.add_argument("--megabytes", type=float)
    parser.add_argument("--rounds", type=int, default=rounds.ROUNDS)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--build", nargs=3, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.build:
        text, tokenizer, path = told.build
        build_shards(Path(path), source=find_source(text), tokenizer=hf_tokenizer_spec(tokenizer))
        return
    megabytes = told.megabytes or (1000.0 if told.memory else 48.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # JSONL, laid-out text, tokens and places at once.
        if shutil.disk_usage(folder).free < 5 * megabytes * 1e6:
            raise SystemExit(f"{folder} has too little space for {megabytes:.0f} MB; set TMPDIR")
        result: dict[str, Any] = {"machine": rounds.machine("tokenizers")}
        tokenizer = told.tokenizer
        if tokenizer is None:
            tokenizer, seconds = vocabulary(folder)
            say(f"trained {VOCABULARY} tokens in {seconds:.1f} s")
            result["training_seconds"] = float(f"{seconds:.3g}")
        what = "memory" if told.memory else "time"
        result |= (
            memory(folder, tokenizer, megabytes)
            if told.memory
            else timed(folder, tokenizer, megabytes, told.rounds)
        )
    if not told.no_save:
        path = rounds.RESULTS / "corpus_build.json"
        before = json.loads(path.read_bytes()) if path.exists() else {}
        rounds.save("corpus_build", before | {what: result})


if __name__ == "__main__":
    os.environ.pop("RAYON_NUM_THREADS", None)
    main()
