"""Tokens a second and memory of our training loop beside the transformers Trainer and a plain PyTorch loop.

    python -m benchmarks.train_speed [--rounds 9] [--shapes 2x64,4x128,6x384] [--vocab 1024,16384]

Each contender lives in a process of its own with one thread, as its users run it (ours sets up torch and the
allocator for itself alone), and they take turns, so that ratios are fair on a machine that does other things
too. Ours is the whole loop: schedule, rows, records, journal. Memory is the peak above what the process held
once its libraries were imported and had made a first step of a tiny model.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

from benchmarks import rounds
from benchmarks.peers import BETAS, CLIP, EPS, RATE, PlainLoop, Shape, TrainerLoop
from repetita.corpus.sequences import Corpus, CorpusSpec, open_corpus
from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes
from repetita.journal.records import Reading
from repetita.model import device
from repetita.model.config import ModelConfig, flops_per_token
from repetita.model.products import product
from repetita.subject import Subject
from repetita.train.loop import Due, Options, train
from repetita.train.recipe import Recipe, RunSpec

HEADS = {64: 2, 128: 4, 384: 6}
CONTENDERS = ("ours", "plain", "plain with hits", "trainer")
LEAST_SECONDS = 1.5
"""Of one contender in one round; steps a round follow from it."""
WARM = 3


class Ours:
    """Our loop: whole runs on a real corpus, timed between two states of the run."""

    def __init__(self, shape: Shape, corpus: Corpus, *, folder: str) -> None:
        self.shape, self.corpus, self.folder, self.turn = shape, corpus, Path(folder), 0

    def steps(self, n: int, *, unmeasured: int = WARM) -> float:
        """Seconds of n steps."""
        moments: list[float] = []

        def clock(_: Subject) -> Iterator[Reading]:
            moments.append(time.perf_counter())
            yield Reading("clock", "train", None, 0)

        self.turn += 1
        due = Due("0" * 12, "clock", frozenset({unmeasured, unmeasured + n}), clock)
        spec = self.spec(steps=unmeasured + n)
        train(spec, corpus=self.corpus, root=self.folder, probes=[due], options=Options())
        return moments[1] - moments[0]

    def spec(self, *, steps: int) -> RunSpec:
        """A run over the training set, with another seed each time."""
        model = ModelConfig(
            n_layer=self.shape.n_layer,
            d_model=self.shape.d_model,
            n_head=self.shape.n_head,
            vocab_size=self.shape.vocab_size,
            context=self.shape.context,
        )
        return RunSpec(
            corpus=self.corpus.spec,
            model=model,
            treatment=Passes(n_sequences=64),
            recipe=Recipe(
                learning_rate=RATE, warmup_steps=0, beta1=BETAS[0], beta2=BETAS[1], eps=EPS, clip=CLIP
            ),
            steps=steps,
            batch_size=self.shape.batch_size,
            seed=self.turn,
        )


def corpus_for(shape: Shape, folder: Path) -> Corpus:
    """Real text with words enough for as many ids as the shape wants."""
    spec = CorpusSpec(
        source="python-stdlib",
        limit_documents=300,
        tokenizer=TokenizerSpec(vocab_size=shape.vocab_size),
        length=shape.context,
        splits=Splits(test="0.05"),
    )
    return open_corpus(spec, cache=folder)


def batches_of(corpus: Corpus, shape: Shape) -> torch.Tensor:
    """The same text for the peers: steps x rows x (context + 1)."""
    rows = corpus.sets["train"].rows(np.arange(64))
    ids = np.concatenate([rows.tokens, rows.targets[:, -1:]], axis=1)
    return torch.from_numpy(ids).view(-1, shape.batch_size, shape.context + 1)


def make(name: str, shape: Shape, folder: Path) -> Callable[[int], float]:
    """The contender as a function from a number of steps to seconds."""
    corpus, private = corpus_for(shape, folder), tempfile.mkdtemp(dir=folder)
    if name == "ours":
        return Ours(shape, corpus, folder=private).steps
    batches = batches_of(corpus, shape)
    if name == "trainer":
        return TrainerLoop(shape, batches, folder=private).steps
    return PlainLoop(shape, batches, hits=name == "plain with hits").steps


class Contender:
    """A process that trains when it is asked to."""

    def __init__(self, name: str, shape: Shape, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.train_speed", "--serve", name, "--folder", str(folder)]
        command += ["--shapes", f"{shape.n_layer}x{shape.d_model}", "--vocab", str(shape.vocab_size)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.shape = shape
        self.n_steps = 4
        self.n_steps = max(4, round(LEAST_SECONDS / (self.ask(4) / 4)))

    def ask(self, n: int) -> float:
        """Seconds of n steps, for 0 the peak of memory in bytes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            word, _, value = line.partition(" ")
            if word == "answer":
                return float(value)
        raise RuntimeError("a contender ended early; its own message is above")

    def rate(self) -> float:
        """Tokens a second in one turn."""
        return self.n_steps * self.shape.tokens / self.ask(self.n_steps)

    def end(self) -> None:
        """Lets the process go."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(name: str, shape: Shape, folder: Path) -> None:
    """What a contender's process does: reads numbers of steps, answers seconds."""
    torch.set_num_threads(1)
    if name == "trainer":
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    make(name, Shape(1, 8, 1, 1024, 16, 2), folder)(2)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    base = _status("VmRSS")
    steps = make(name, shape, folder)
    for line in sys.stdin:
        n = int(line)
        rounds.say(f"answer {steps(n) if n else _status('VmHWM') - base}")


def matmul_peak() -> float:
    """GFLOP/s of a float32 product on one thread, the best of several sizes by BLAS and by oneDNN."""
    best = 0.0
    for n in (512, 1024, 2048):
        a, b = torch.randn(n, n), torch.randn(n, n)
        for multiply in (torch.mm, product):
            for _ in range(8):
                began = time.perf_counter()
                multiply(a, b)
                best = max(best, 2 * n**3 / (time.perf_counter() - began) / 1e9)
    return best


def model_gflop(shape: Shape) -> float:
    """GFLOP of the matrix products of one step, of attention only what causality leaves."""
    config = ModelConfig(
        n_layer=shape.n_layer,
        d_model=shape.d_model,
        n_head=shape.n_head,
        vocab_size=shape.vocab_size,
        context=shape.context,
    )
    scores = 3 * 4 * shape.n_layer * shape.context * shape.d_model
    return (flops_per_token(config).matmul - scores / 2) * shape.tokens / 1e9


GROUPS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "_linear_pointwise"),
    "attention": ("aten::bmm", "scaled_dot_product", "_Tiled"),
    "GELU": ("gelu", "Gelu"),
    "loss (softmax, top-1)": ("softmax", "amax", "gather", "scatter", "log", "maximum"),
    "norms": ("layer_norm",),
    "optimizer and clip": ("adamw", "AdamW", "linalg_vector_norm"),
    "copies, sums, indexing": ("copy_", "add", "sum", "index", "embedding", "cat", "fill", "mul", "zero"),
}


def breakdown(shape: Shape, corpus: Corpus, folder: str) -> dict[str, float]:
    """Shares of our time by kind of work, from torch's profiler; the rest is Python and bookkeeping."""
    from torch.profiler import ProfilerActivity, profile

    ours = Ours(shape, corpus, folder=folder)
    steps = max(5, round(1.0 / (ours.steps(5) / 5)))
    bare = ours.steps(steps)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        ours.steps(steps)
    shares: dict[str, float] = dict.fromkeys(GROUPS, 0.0)
    for event in found.key_averages():
        group = next((g for g, parts in GROUPS.items() if any(part in event.key for part in parts)), None)
        if group is not None:
            shares[group] += event.self_cpu_time_total / 1e6 / (steps + WARM)
    of_step = {name: round(seconds / (bare / steps), 3) for name, seconds in shares.items()}
    return of_step | {"everything else": round(1 - sum(of_step.values()), 3)}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def compare(shape: Shape, folder: Path, *, n_rounds: int) -> dict[str, Any]:
    """All contenders at one shape."""
    corpus = corpus_for(shape, folder)
    contenders = {name: Contender(name, shape, folder) for name in CONTENDERS}
    held = {name: int(one.ask(0)) for name, one in contenders.items()}
    found = rounds.interleaved({name: one.rate for name, one in contenders.items()}, rounds=n_rounds)
    for one in contenders.values():
        one.end()
    peak = matmul_peak()
    share = model_gflop(shape) * found.middle("ours") / shape.tokens / peak
    return {
        "shape": shape.name,
        "tokens_per_second": {name: round(found.middle(name)) for name in CONTENDERS},
        "ratio_to": {
            name: rounds.estimate(found.ratio("ours", to=name)) for name in CONTENDERS if name != "ours"
        },
        "peak_bytes_above_imports": held,
        "matmul_peak_gflops": round(peak, 1),
        "share_of_matmul_peak": round(share, 3),
        "where_our_time_goes": breakdown(shape, corpus, tempfile.mkdtemp(dir=folder)),
    }


def tell(result: dict[str, Any]) -> None:
    """One shape on the terminal."""
    rounds.say(f"\n{result['shape']}")
    for name, rate in result["tokens_per_second"].items():
        ratio = result["ratio_to"].get(name)
        shown = f"ours is {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else ""
        held = f"{result['peak_bytes_above_imports'][name] / 1e6:8.0f} MB"
        rounds.say(f"  {name:16s} {rate:9,d} tokens/s {held}  {shown}")
    share, peak = result["share_of_matmul_peak"], result["matmul_peak_gflops"]
    rounds.say(f"  ours does matrix products at {share:.0%} of the peak of {peak} GFLOP/s; its time:")
    for name, share in result["where_our_time_goes"].items():
        rounds.say(f"    {name:24s} {share:6.1%}")


def main() -> None:
    """Parses, measures, prints, writes `results/train_speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", default="2x64,4x128,6x384")
    parser.add_argument("--vocab", default="1024,16384")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    shapes = [
        Shape(int(layers), int(width), HEADS[int(width)], int(vocab))
        for layers, width in (one.split("x") for one in given.shapes.split(","))
        for vocab in given.vocab.split(",")
    ]
    if given.serve:
        serve(given.serve, shapes[0], Path(given.folder))
        return
    device.setup("cpu", threads=1)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes:
            results.append(compare(shape, Path(folder), n_rounds=given.rounds))
            tell(results[-1])
    if not given.no_save:
        machine = rounds.machine("transformers", "accelerate")
        rounds.save("train_speed", {"machine": machine, "rounds": given.rounds, "results": results})


if __name__ == "__main__":
    main()
