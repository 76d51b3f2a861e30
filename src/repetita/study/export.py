"""A checkpoint of a run and the tokenizer of its corpus, exported for other libraries."""

from pathlib import Path
from typing import TYPE_CHECKING

from repetita.corpus.documents import public_source
from repetita.errors import SpecError, nearest
from repetita.journal.folder import read_header
from repetita.model.adopted import Adopted
from repetita.model.checkpoint import steps_on_disk
from repetita.model.live import checkpoint_subject
from repetita.model.pretrained_spec import PretrainedModel
from repetita.model.transformer import Transformer
from repetita.study.corpora import Corpora, Say, quiet
from repetita.study.single import open_run
from repetita.train.recipe import RunSpec

if TYPE_CHECKING:
    from repetita.model.export import Exported

FORMATS = ("hf",)
"""What `export_run` writes: `hf` is a folder in the layout of transformers."""


def export_run(
    path: str | Path,
    *,
    out: str | Path,
    to: str = "hf",
    root: str | Path = "repetita-out",
    step: int | None = None,
    source: str | None = None,
    say: Say = quiet,
) -> "Exported":
    """Writes a kept checkpoint (default: the last) of the run in `path` into the new folder `out`.

    `AutoModelForCausalLM.from_pretrained(out)` (of a masked run `AutoModelForMaskedLM`) and
    `AutoTokenizer.from_pretrained(out)` open it with nothing of this package; logits are compared before the
    folder is there. The tokenizer is that of the run's corpus below `root`; where that is gone, `source` says
    where its text lies. Raises RunFolderError where there is no such run or checkpoint, and SpecError for
    another format, a folder that is there, and a model that no class of transformers holds.

    >>> from pathlib import Path
    >>> from repetita import export_run
    >>> run = next(Path("repetita-out/runs").glob("*-repeated_subset-s0-*"))
    >>> _ = export_run(run, out="exported")
    >>> Path("exported/config.json").exists()
    True
    """
    if to not in FORMATS:
        raise SpecError(f"no format is named '{to}'; {nearest(to, FORMATS)}")
    try:
        from repetita.model.adopted_export import export_adopted
        from repetita.model.export import export
    except ImportError:
        raise SpecError(
            "export needs transformers, which is not installed; run: pip install 'repetita[hf]'"
        ) from None
    path, corpora = Path(path), Corpora(Path(root), say=say)
    spec = open_run(path, corpora=corpora, source=source)
    taken = max(steps_on_disk(path), default=0) if step is None else step
    model = checkpoint_subject(path, step=taken).model
    card = _card(spec, run=str(read_header(path)["fingerprint"]), step=taken)
    if isinstance(model, Adopted):
        return export_adopted(model, to=Path(out), card=card)
    assert isinstance(model, Transformer)
    return export(model, tokenizer=corpora.open(spec.corpus).tokenizer, to=Path(out), card=card)


def _card(spec: RunSpec, *, run: str, step: int) -> str:
    """A model card: how to open the folder, what its rows begin with, and what it was trained on."""
    masked = spec.model.objective == "masked"
    auto = "AutoModelForMaskedLM" if masked else "AutoModelForCausalLM"
    adopted, begun = isinstance(spec.model, PretrainedModel), ""
    if isinstance(spec.model, PretrainedModel):
        begun = f"- begun with: {spec.model.name} (sha256 {spec.model.sha256})\n"
    rows = (
        "Texts are read as they are: no token stands before or after them."
        if masked
        else "Every row that it was trained on begins with the start token, which also separates documents; "
        + ("put it before a text." if adopted else "the tokenizer puts it before a text.")
    )
    return f"""# {spec.model.objective.capitalize()} language model trained by repetita

```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```

{rows} Rows had {spec.corpus.length} tokens.

{begun}- run: `{run}`, after {step} of {spec.steps} steps of {spec.batch_size} sequences
- text: {public_source(spec.corpus.source)}, whose licence holds for what the model has learned by heart
- treatment: {spec.treatment.kind}, seed {spec.seed}
"""
