"""The options of `repetita measure`."""

from pathlib import Path
from typing import Annotated

import typer

_SUBJECTS = (
    "A run's folder, or its name below runs/; with --text also run:FOLDER@STEP, hf:NAME@REVISION, a folder "
    "in transformers' layout, a .gguf file; several."
)
_PROBES = (
    "Several times: score, unit_length, extraction, membership, probabilistic, copying, heads, "
    "in_context, parts_of_speech, canaries. [default: the first four]"
)
_TEXTS = "A text, a .csv, .jsonl or .parquet file of texts, or a folder; several."
_ON = "Without --text: a set, several times: test, repeated, special/0 ... [default: test]"

Subjects = Annotated[list[str], typer.Argument(metavar="SUBJECT...", help=_SUBJECTS)]
Texts = Annotated[list[str] | None, typer.Option("--text", help=_TEXTS)]

# Of a run on sets of its own corpus.
On = Annotated[list[str] | None, typer.Option("--on", help=_ON)]
Step = Annotated[
    int | None, typer.Option(help="Without --text: step of a kept checkpoint. [default: the last]")
]
MaxSequences = Annotated[
    int | None, typer.Option(help="Without --text: at most this many sequences a set. [default: all]")
]
Source = Annotated[
    str | None, typer.Option(help="Without --text: where the corpus lies, when it is a file that was moved.")
]

# Of any subjects on texts: what is measured.
Probes = Annotated[list[str] | None, typer.Option("--probe", help=_PROBES)]
Prompts = Annotated[
    str | None, typer.Option("--prompt", help="Tokens of a prompt, with commas. [default: 32]")
]
Suffixes = Annotated[
    str | None, typer.Option("--suffix", help="Tokens asked for behind it, with commas. [default: 32]")
]
Temperature = Annotated[float | None, typer.Option(help="For probabilistic extraction. [default: 1]")]
TopK = Annotated[int | None, typer.Option(help="For probabilistic extraction. [default: no cut]")]
TopP = Annotated[float | None, typer.Option(help="For probabilistic extraction. [default: no cut]")]
Canaries = Annotated[
    str | None, typer.Option(help="canaries.json of `repetita canaries make`, for their exposure.")
]
Indices = Annotated[
    str | None, typer.Option(help="For in_context: an early and a late token. [default: 50,500]")
]
Eidetic = Annotated[
    str | None,
    typer.Option(metavar="CORPUS", help="Count its documents that hold a text, or what is extracted of it."),
]
Reference = Annotated[
    str | None, typer.Option(metavar="SUBJECT", help="A second model, for the ratio of losses on each text.")
]
TrainedWith = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE", help="Columns subject and text, who read what: for counterfactual memorization."
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most this many texts of each --text.")]

# How a text is read.
Bos = Annotated[
    str | None, typer.Option(help="auto, always, never or eos: the token before a text. [default: auto]")
]
Window = Annotated[int | None, typer.Option(help="Tokens of a window. [default: the model's context]")]
Stride = Annotated[
    str | None, typer.Option(help="New tokens of each later window, disjoint, or refuse. [default: disjoint]")
]
FirstToken = Annotated[
    str | None, typer.Option(help="auto, scored or skipped: a text's first token. [default: auto]")
]

# Where and how exactly.
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps ... [default: what is there]")]
DType = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float16. [default: float32 where it fits]")
]
BatchTokens = Annotated[int | None, typer.Option(help="Tokens read at once. [default: what fits]")]
Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="SUBJECT...",
        help="hf:NAME@all, hf:NAME@step0,step1000, a folder of checkpoint folders, run:RUN@all ...",
    ),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Weights as a pickle where there are no safetensors.")
]
Out = Annotated[Path | None, typer.Option(help="A Parquet file for the rows by text.")]
