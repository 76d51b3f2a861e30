"""Data sets of the Hugging Face hub, streamed at one commit."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from repetita.corpus.source import (
    KNOWN_FIELDS,
    NAME_FIELDS,
    Document,
    InputFile,
    Row,
    Source,
    row_documents,
    slug,
)
from repetita.errors import CorpusError, SpecError, first_line, nearest
from repetita.spec import fingerprint

HUB = "hf:"
"""What a `source` of the hub starts with."""

SECONDS = 10.0
"""Time that the hub has to say which commit a revision is."""


class _Commit(NamedTuple):
    """What a revision of a data set came to."""

    revision: str
    """The commit, or the revision as it was given."""
    licence: str = "unknown"
    trouble: Exception | None = None
    """Why the hub did not answer; None where it did."""

    @property
    def version(self) -> str:
        """The revision as the card has it."""
        known = re.fullmatch("[0-9a-f]{40}", self.revision)
        return self.revision if known else f"{self.revision}, not resolved to a commit"


def hub_dataset(source: str, *, text_field: str, subset: str | None, split: str | None) -> Source:
    """The data set `hf:NAME` or `hf:NAME@REVISION`: its configuration `subset`, its `split` (default: train).

    The revision (default: main) is resolved to its commit, which is what is read, signed and put in the card:
    a branch that moves is another corpus. Where the hub cannot be reached, the commit is the one that was
    last fetched, or the revision stands as it was given and the card says so. Nothing but this data set is
    asked for, none of its code is run, and HF_HUB_OFFLINE holds. Raises CorpusError where the data set, its
    revision or `datasets` is missing or it cannot be reached, SpecError for an unknown subset or split.
    """
    name, revision = _parsed(source)
    commit = _commit(name, revision, source=source)
    split = split or "train"

    def opened() -> Any:
        if commit.trouble is not None and not _offline():
            raise _unreachable(source, commit.trouble)
        return _stream(name, commit.revision, source, subset, split, text_field)

    def documents() -> Iterator[Document]:
        with _unseen():
            yield from row_documents(_rows(opened(), source), text_field=text_field)

    def files() -> list[InputFile]:
        with _unseen():
            n = int(opened().num_shards)
        pieces = [(commit.revision, subset, split, index, n) for index in range(n)]
        return [InputFile("hub", f"{HUB}{name}", "", text_field=text_field, piece=piece) for piece in pieces]

    card = {
        "source": f"{HUB}{name}",
        "version": commit.version,
        "licence": commit.licence,
        "split": split,
    }
    if subset is not None:
        card["subset"] = subset
    signature = fingerprint([HUB, name, commit.revision, subset, split])
    return Source(slug(name), signature, card, documents, files)


GIVEN, NUMBERED = "=", "#"
"""What a row's name begins with in `hub_rows`: it has one, or its number in its file stands for it."""


def hub_rows(file: InputFile, /) -> Iterator[Row]:
    """The rows of one file of a data set; of each the name says whether it is its own.

    A row without a name is called by its number in the whole data set, which one file does not know.
    """
    assert file.piece is not None
    revision, subset, split, index, n = file.piece
    where = f"{file.path}, file {index + 1} of {n}"
    with _unseen():
        stream = _kept_stream(
            file.path.removeprefix(HUB), revision, file.path, subset, split, file.text_field
        )
        if stream.num_shards != n:
            raise CorpusError(f"{file.path} has {stream.num_shards} files now and had {n}; build again")
        for row in _rows(stream.shard(num_shards=n, index=index), where):
            own = next((row.fields[key] for key in NAME_FIELDS if row.fields.get(key) is not None), "")
            name = f"{GIVEN}{own}" if str(own) else f"{NUMBERED}{row.number}"
            yield row._replace(fields={**row.fields, NAME_FIELDS[0]: name})


def _parsed(source: str) -> tuple[str, str]:
    name, at, revision = source.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) or (at and not revision.strip()):
        raise CorpusError(
            f"'{source}' names no data set of the hub; write {HUB}NAME, {HUB}OWNER/NAME or "
            f"{HUB}NAME@REVISION, and a folder by its path alone"
        )
    if Path(name).exists():  # `datasets` would read that one.
        raise CorpusError(
            f"'{name}' is here as well as on the hub; give its path as ./{name}, or run elsewhere"
        )
    return name, revision or "main"


def _commit(name: str, revision: str, *, source: str) -> _Commit:
    """The commit of a revision, by the hub or else by what was last fetched of it."""
    try:
        import datasets  # noqa: F401
        from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise CorpusError(f"reading {source} needs datasets; run: pip install 'repetita[hf]'") from None
    try:
        with _unseen():
            info = HfApi().dataset_info(name, revision=revision, timeout=SECONDS)
            with suppress(
                EntryNotFoundError
            ):  # Its place in the library's cache tells the commit when offline.
                hf_hub_download(name, "README.md", repo_type="dataset", revision=revision)
    except RevisionNotFoundError:
        raise CorpusError(
            f"the data set '{HUB}{name}' has no revision '{revision}'; give one that it has"
        ) from None
    except RepositoryNotFoundError:
        raise CorpusError(
            f"the hub has no data set '{name}', or not for you; see how it is spelt, or log in with: hf "
            f"auth login"
        ) from None
    except Exception as error:  # noqa: BLE001
        # Each version of the library has other errors for a network that is not there.
        fetched = try_to_load_from_cache(name, "README.md", repo_type="dataset", revision=revision)
        return _Commit(Path(fetched).parent.name if isinstance(fetched, str) else revision, trouble=error)
    licence = getattr(info.card_data, "license", None) or "unknown"
    return _Commit(info.sha or revision, ", ".join([licence] if isinstance(licence, str) else licence))


def _stream(name: str, revision: str, source: str, subset: str | None, split: str, text_field: str) -> Any:
    """The data set with the columns that are read."""
    stream = _open(name, revision, source=source, subset=subset, split=split)
    columns: list[str] | None = stream.column_names
    if columns is None:
        return stream
    if text_field not in columns:
        raise CorpusError(
            f"{source} has no column '{text_field}' (it has {', '.join(columns)}); name the right one as "
            f"text_field"
        )
    # What is not asked for, pictures for example, is not decoded.
    return stream.select_columns([one for one in columns if one in {text_field, *KNOWN_FIELDS}])


_kept_stream = lru_cache(maxsize=1)(_stream)
"""What files the hub has is asked once by a process, however many of them it reads."""


def _rows(stream: Any, source: str) -> Iterator[Row]:
    rows, number = iter(stream), 0
    while (row := _next(rows, where=f"{source}, row {(number := number + 1)}")) is not None:
        yield Row(row, number, f"{source}, row {number}")


def _next(rows: Iterator[dict[str, Any]], *, where: str) -> dict[str, Any] | None:
    try:
        return next(rows, None)
    except Exception as error:
        raise CorpusError(
            f"{where}: the stream broke off ({first_line(error)}); try again, or save it with save_to_disk "
            f"and give that folder"
        ) from error


def _open(name: str, revision: str, *, source: str, subset: str | None, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, name=subset, split=split, revision=revision, streaming=True)
    except ValueError as error:
        raise _unknown_part(error, source=source, subset=subset, split=split) from error
    except ConnectionError as error:
        raise _unreachable(source, error) from error
    except Exception as error:
        raise CorpusError(
            f"{source} cannot be read ({first_line(error)}); save it elsewhere with save_to_disk and "
            f"give that folder"
        ) from error


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _unknown_part(error: ValueError, *, source: str, subset: str | None, split: str) -> Exception:
    """What `datasets` says of an unknown subset or split, which it lists in brackets."""
    said = " ".join(str(error).split())
    listed = re.findall(r"'([^']*)'", said.partition("[")[2].partition("]")[0])
    if not listed or not said.startswith(("Config name", "BuilderConfig", "Bad split", "Unknown split")):
        return CorpusError(f"{source} cannot be read ({first_line(error)}); give another data set")
    what, given = ("split", split) if "split" in said.split("[")[0] else ("subset", subset)
    has = f"it has {', '.join(listed)}"
    if given is None:
        return SpecError(f"{source} has several subsets ({has}); name one as subset")
    return SpecError(f"{source} has no {what} '{given}' ({has}); {nearest(given, listed)}")


def _unreachable(source: str, error: Exception) -> CorpusError:
    return CorpusError(
        f"the hub cannot be reached for {source} ({first_line(error)}); go online, or save it elsewhere "
        f"with save_to_disk and give that folder"
    )


@contextmanager
def _unseen() -> Iterator[None]:
    """No counting of downloads, no versions sent along, no bars and no warnings while the hub is asked."""
    import logging

    import datasets
    from huggingface_hub import constants

    switches: list[tuple[Any, str, Any]] = [
        (datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
        (constants, "HF_HUB_DISABLE_TELEMETRY", True),
    ]
    before = [getattr(module, name, None) for module, name, _ in switches]
    bars = datasets.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for module, name, value in switches:
        setattr(module, name, value)
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for (module, name, _), value in zip(switches, before, strict=True):
            setattr(module, name, value)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
