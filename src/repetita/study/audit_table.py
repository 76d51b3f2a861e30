"""What audits have found, on disk: rows in Parquet, keyed so that another model's never overwrite them."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repetita.errors import DamagedError, first_line
from repetita.fit.estimate import cluster_ratio, proportion
from repetita.journal.disk import write_atomic
from repetita.spec import fingerprint
from repetita.study.audit_subjects import Named
from repetita.study.audit_texts import Text

if TYPE_CHECKING:
    import polars as pl

FOLDER = "audits"

KEYS = ("subject", "rule", "probe", "text")
"""What a row is about: the subject's identity (weights by hash, revision, tokenizer, numbers), the rule of
reading as it came to be, the probe's fingerprint, and the text's hash; of a whole group `group_key`."""

COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("subject", "name", "revision"), str),
    "step": int,
    **dict.fromkeys(("dtype", "device"), str),
    "halvings": int,
    **dict.fromkeys(("rule", "rule_text", "text", "probe", "instrument", "metric", "on"), str),
    "value": float,
    **dict.fromkeys(("low", "high"), float),
    "n": int,
    "total": float,
    **dict.fromkeys(("unit", "note"), str),
}
"""Of a row in the store. `halvings`: batches that had not fit into memory up to then. `on`: the passage of
a probe that shows its own ones, else empty. `value` is `total` / `n`, null where it is not defined. `low`,
`high`: its interval, of a whole group whose probe has one."""

SHARES = ("memorized", "extractable_", "discoverable_", "eidetic_unique_")
"""How metrics begin that are shares of trials: at 0 and 1 they get an exact interval, a trial a text."""

BOUNDED = (*SHARES, "memorization_score_", "extraction_strength", "p_z_")
"""How metrics begin that are within 0 and 1: so are their intervals."""

MOST_CLUSTERS = 1000
"""Texts are dealt out over at most so many clusters, so that a bootstrap over a million of them ends."""


class Store:
    """The rows of one subject under one rule, in `<root>/audits/<name>-<identity>/<rule>-<key>.parquet`.

    A part is written whole or not at all, and named by what it holds, so that the same block written twice is
    one file.
    """

    def __init__(self, root: Path, /, *, subject: str, slug: str, rule: str) -> None:
        self.folder, self._rule = root / FOLDER / f"{slug}-{subject}", rule

    def kept(self) -> "pl.DataFrame":
        """All rows, each key once; raises DamagedError for a part that cannot be read."""
        return read_parts(sorted(self.folder.glob(f"{self._rule}-*.parquet")))

    def done(self) -> set[tuple[str, str]]:
        """(probe, text) of what needs not be measured again."""
        return set(self.kept().select("probe", "text").unique().iter_rows())

    def add(self, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Writes a part. Raises StorageError."""
        import polars as pl

        keys = sorted({tuple(row[key] for key in KEYS) for row in rows})
        buffer = io.BytesIO()
        pl.DataFrame(list(rows), schema=COLUMNS).write_parquet(buffer)
        write_atomic(self.folder / f"{self._rule}-{fingerprint(keys)[:16]}.parquet", buffer.getvalue())

    def note(self, name: str, value: Mapping[str, Any], /) -> None:
        """Keeps a small value beside the rows, as JSON."""
        write_atomic(self.folder / f"{name}.json", json.dumps(value, indent=1).encode())

    def noted(self, name: str, /) -> dict[str, Any] | None:
        """What was kept under a name; None where nothing was, or it cannot be read."""
        try:
            found = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def read_store(root: str | Path, /) -> "pl.DataFrame":
    """The rows of all audits below a root folder, columns as COLUMNS, each key once."""
    return read_parts(sorted((Path(root) / FOLDER).glob("*/*.parquet")))


def read_parts(files: Iterable[Path], /) -> "pl.DataFrame":
    """The rows of some parts, each key and metric once.

    Raises DamagedError for a part that cannot be read, naming it: without it, its texts are measured again.
    """
    import polars as pl

    parts = [pl.DataFrame(schema=COLUMNS)]
    for file in files:
        try:
            part = pl.read_parquet(io.BytesIO(file.read_bytes()))
            # A column that has been added since is not what rows are found by.
            later = [name for name in COLUMNS if name not in (*part.columns, *KEYS)]
            part = part.with_columns(pl.lit(None).alias(name) for name in later)
            parts.append(part.select(list(COLUMNS)).cast(dict(parts[0].schema)))  # type: ignore[arg-type]
        except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
            raise DamagedError(
                f"{file} is damaged ({first_line(error)[:80]}); delete it, and its texts are measured again"
            ) from None
    return _once(pl.concat(parts))


def of_probes(tables: Sequence["pl.DataFrame"], /, *, probes: Sequence[str]) -> "pl.DataFrame":
    """The rows of some stores that are of these probes (see `key_of`), in their order, each key and metric
    once a name."""
    import polars as pl

    parts = [rows.filter(pl.col("probe") == probe) for rows in tables for probe in probes]
    return _once(pl.concat(parts), "name", "revision")


def renamed(rows: "pl.DataFrame", /, *, name: Named) -> "pl.DataFrame":
    """The rows of one subject by what an audit calls it: the same model can stand in several series."""
    import polars as pl

    return rows.with_columns(
        pl.lit(name.name).alias("name"),
        pl.lit(name.revision, dtype=pl.String).alias("revision"),
        pl.lit(name.step, dtype=pl.Int64).alias("step"),
    )


def _once(rows: "pl.DataFrame", *besides: str) -> "pl.DataFrame":
    return rows.unique([*KEYS, *besides, "metric", "on"], keep="first", maintain_order=True)


def group_key(texts: Sequence[Text], /) -> str:
    """The key of a whole group of texts, in whatever order they come."""
    return "group:" + fingerprint(sorted(one.sha256 for one in texts))


def by_text(kept: "pl.DataFrame", /, *, texts: Sequence[Text]) -> "pl.DataFrame":
    """The rows of these texts and no others, with their `group` and `text_name`; COLUMNS besides,
    but for the interval of a whole group.

    A text that stands in two groups, or twice in one, has its rows as often.
    """
    import polars as pl

    place = pl.DataFrame(
        {
            "text": [one.sha256 for one in texts],
            "group": [one.group for one in texts],
            "text_name": [one.name for one in texts],
        },
        schema={"text": pl.String, "group": pl.String, "text_name": pl.String},
    )
    return place.join(kept.drop("low", "high"), on="text", how="inner", maintain_order="left_right")


def by_group(kept: "pl.DataFrame", /, *, texts: Sequence[Text]) -> "pl.DataFrame":
    """Each metric of each group: value, its interval over texts (`low`, `high`, null where it is open), n.

    Columns: subject, name, revision, step, dtype, device (all that its texts were measured on), rule,
    rule_text, group, probe, instrument, metric, on, value, low, high, n, unit, texts (how many have the
    metric), note.
    """
    import polars as pl

    about = ["subject", "name", "revision", "step", "dtype", "rule", "rule_text"]
    keys = [*about, "group", "probe", "instrument", "metric", "on"]
    rows: list[dict[str, Any]] = []
    for key, part in by_text(kept, texts=texts).group_by(keys, maintain_order=True):
        # A resumed audit may have gone on elsewhere: its group is one group.
        places = {"device": ", ".join(part["device"].unique().sort())}
        rows.append(dict(zip(keys, key, strict=True)) | places | _together(part))
    for group in dict.fromkeys(one.group for one in texts):
        whole = kept.filter(pl.col("text") == group_key([one for one in texts if one.group == group]))
        for row in whole.iter_rows(named=True):
            open_ = {"group": group, "texts": None}
            rows.append(
                {name: row[name] for name in (*about, "device", "probe", "instrument", "metric", "on")}
                | open_
                | {name: row[name] for name in ("value", "low", "high", "n", "unit", "note")}
            )
    columns = [*about[:5], "device", *keys[5:], "value", "low", "high", "n", "unit", "texts", "note"]
    kinds = COLUMNS | {"group": str, "texts": int}
    return pl.DataFrame(rows, schema={name: kinds[name] for name in columns})


def _together(part: "pl.DataFrame") -> dict[str, Any]:
    """The texts of a group as one value, sum of totals over sum of n, with its interval over texts."""
    known = part.filter(part["n"] > 0).sort("text")
    unit, notes = part["unit"].max(), part["note"].unique().sort().to_list()
    if not len(known):
        return {"value": None, "low": None, "high": None, "n": 0, "unit": unit, "texts": 0, "note": notes[-1]}
    # The order of hashes has nothing to do with what the texts say; the same text twice is no second one.
    clusters = (known["text"].rank("dense").to_numpy() - 1) % MOST_CLUSTERS
    found = cluster_ratio(
        known["total"].to_numpy(), counts=known["n"].to_numpy(), clusters=clusters, contains="texts"
    )
    if part["metric"][0].startswith(SHARES) and found.value in (0.0, 1.0):
        texts = known["text"].n_unique()
        found = proportion(texts if found.value else 0, n=texts)
    if part["metric"][0].startswith(BOUNDED) and found.low is not None and found.high is not None:
        found = found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": int(known["n"].sum()),
        "unit": unit,
        "texts": len(known),
        "note": known["note"][0],
    }
