"""Writes the tree of the README from the first docstring sentence of every module.

`python tools/readme_tree.py README.md` replaces what stands between the two markers.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "repetita"

START = "<!-- tree: written by `make readme` -->"
END = "<!-- end of tree -->"
WIDTH = 110
COLUMN = 29

PACKAGES = {
    "journal": "what is written down about a run, and the only reader of it",
    "corpus": "text, token ids, the sequences of step t; numpy only",
    "model": "torch begins here",
    "train": "a run as a value, and the one loop",
    "measure": "a subject and sequences in, measurements out; numpy only",
    "fit": "tables in, numbers with intervals and verdicts out",
    "report": "figures as data, drawn on one self-contained page",
    "study": "a question with its runs, probes and claims; doing what is missing",
    "studies": "one question a file",
    "cli": "one file a verb: parse, call, print",
}
"""The folders in the order in which the data flows; their `__init__` files are empty."""

READING = """
errors spec seeds cadence subject
records lines disk folder names table follow
documents synthetic tokenizer sentences shards splits breaks sequences
treatment lanes subsets injections schedule
config transformer attention loss device checkpoint live
recipe optimizer spikes stopping loop
probe planted memorization
estimate curves solve laws by_name effective_size claim
figure palette scale draw page
plan new expand find ahead execute engines work collect watch trackers
demo corpus train measure study new watch fit
"""
"""Files in the order in which to read them; a file that is not listed comes after, by name."""


class Line(NamedTuple):
    """A file or folder of the tree: what is drawn before its name, the name, what it is."""

    branch: str
    name: str
    text: str


def first_sentence(module: Path) -> str:
    """The first sentence of a module's docstring on one line, without its full stop."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"\.(?=\s+[A-Z`*])", paragraph)[0].removesuffix(".")  # "Figs. 2" ends no sentence


def modules(folder: Path) -> list[Path]:
    """The files of one folder that say something, in reading order."""
    files = [file for file in folder.glob("*.py") if file.name not in ("__init__.py", "__main__.py")]
    return sorted(files, key=lambda file: (_rank(file.stem), file.stem))


def _rank(stem: str) -> int:
    order = READING.split()
    return order.index(stem) if stem in order else len(order)


def lines() -> Iterator[Line]:
    """Every line of the tree, top to bottom."""
    yield Line("", "src/repetita/", first_sentence(SOURCE / "__init__.py").removeprefix("repetita: "))
    for file in modules(SOURCE):
        yield Line("├─ ", file.name, first_sentence(file))
    for package, text in PACKAGES.items():
        last = package == list(PACKAGES)[-1]
        yield Line("└─ " if last else "├─ ", package + "/", text)
        files = modules(SOURCE / package)
        for file in files:
            branch = ("   " if last else "│  ") + ("└─ " if file == files[-1] else "├─ ")
            yield Line(branch, file.name, first_sentence(file))


def tree() -> str:
    """The block that the README holds, markers included."""
    drawn = []
    for branch, name, text in lines():
        wrapped = textwrap.wrap(text, WIDTH - COLUMN - 1, break_on_hyphens=False) or [""]
        drawn.append(f"{branch}{name:<{COLUMN - len(branch)}} {wrapped[0]}".rstrip())
        below = branch.replace("├─", "│ ").replace("└─", "  ")
        drawn += [f"{below:<{COLUMN}} {more}" for more in wrapped[1:]]
    return "\n".join([START, "```", *drawn, "```", END])


def replaced(readme: str) -> str:
    """`readme` with a fresh tree between the markers."""
    before, rest = readme.split(START)
    after = rest.split(END)[1]
    return before + tree() + after


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(replaced(path.read_text(encoding="utf-8")), encoding="utf-8")
