"""What somebody else's training read, and when, from a table: how often a text was seen by some step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.errors import CorpusError, SpecError, first_line, nearest
from repetita.spec import Spec

if TYPE_CHECKING:
    import polars as pl


Ints = NDArray[np.int64]


class KnownOrder(NamedTuple):
    """The steps that read each text, ascending, by the text's name or hash."""

    steps: dict[str, Ints]
    unclear: frozenset[str] = frozenset()
    """Texts of which only parts were read at one time: neither read nor not."""

    def times_seen(self, text: str, /, *, step: ArrayLike) -> Ints:
        """Readings of a text before each `step`: what the weights after so many updates have seen of it.

        0 for a text that the table does not name.
        """
        found = self.steps.get(text, np.zeros(0, np.int64))
        return np.asarray(np.searchsorted(found, np.asarray(step), side="left"), dtype=np.int64)

    def known(self, *names: str) -> str | None:
        """The first of a text's names that the table has; None where it has none."""
        return next((name for name in names if name in self.steps), None)


class FromTable(Spec):
    """A known order of training data: a row of `path` says that the update at `step` read `text`.

    `path`: .parquet, .csv or .jsonl. `step` and `text` name its columns: the number of the update, and what
    the text is called (its file, its row's name, or the SHA-256 of its UTF-8). `first`: the number of the
    first update, so that the weights of step s have seen the rows below s + first. A text in several rows of
    one update was read as often.
    """

    path: str
    step: str = "step"
    text: str = "text"
    first: int = 0

    def read(self) -> KnownOrder:
        """The order. Raises CorpusError for a table that is missing, damaged, or has other columns."""
        table = read_table(self.path, names=(self.text,))
        for column in (self.step, self.text):
            if column not in table.columns:
                raise CorpusError(f"{self.path} has no column '{column}'; {nearest(column, table.columns)}")
        import polars as pl

        steps = table[self.step]
        if not steps.dtype.is_integer() or steps.null_count() or table[self.text].null_count():
            raise CorpusError(
                f"{self.path}: the column '{self.step}' must hold a whole number in every row, and "
                f"'{self.text}' a text's name; mend those rows"
            )
        given = table.select(pl.col(self.text).cast(pl.String), pl.col(self.step).cast(pl.Int64) - self.first)
        if not given.is_empty() and int(given[self.step].to_numpy().min()) < 0:
            raise CorpusError(
                f"{self.path} has a step below first = {self.first}; set first to its lowest one"
            )
        return KnownOrder(
            {
                str(name): np.sort(part[self.step].to_numpy())
                for (name,), part in given.group_by(self.text, maintain_order=True)
            }
        )


def read_table(path: str, /, *, names: Sequence[str]) -> "pl.DataFrame":
    """A .parquet, .csv or .jsonl file; the columns `names` of a .csv are text, also what looks like numbers.

    Raises SpecError for another file, CorpusError for one that is missing or damaged.
    """
    import polars as pl

    file = Path(path).expanduser()
    as_text = dict.fromkeys(names, pl.String)
    readers: dict[str, Any] = {
        ".parquet": pl.read_parquet,
        ".csv": lambda of: pl.read_csv(of, schema_overrides=as_text),
        ".jsonl": pl.read_ndjson,
    }
    if file.suffix.lower() not in readers:
        raise SpecError(f"'{path}' is no table; give a .parquet, .csv or .jsonl file")
    if not file.is_file():
        raise CorpusError(f"there is no table {path}; {nearest(file.name, _beside(file))}")
    try:
        found: pl.DataFrame = readers[file.suffix.lower()](file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CorpusError(f"{path} cannot be read ({first_line(error)}); write it again") from None
    return found


def _beside(path: Path) -> list[str]:
    return [one.name for one in path.parent.glob("*") if one.is_file()] if path.parent.is_dir() else []
