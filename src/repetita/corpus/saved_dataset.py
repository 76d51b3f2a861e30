"""Folders that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""

import json
from pathlib import Path
from typing import Any

from repetita.corpus.input_files import read_files, stamped
from repetita.corpus.source import InputFile, Source, files_signature, slug
from repetita.errors import CorpusError, SpecError, nearest
from repetita.spec import fingerprint

DICT_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"


def is_saved_dataset(folder: Path) -> bool:
    """Whether the folder holds a data set, or several splits of one, in the Arrow files of `datasets`."""
    return (folder / DICT_FILE).is_file() or all(
        (folder / name).is_file() for name in (STATE_FILE, INFO_FILE)
    )


def saved_dataset(folder: Path, *, text_field: str, split: str | None) -> Source:
    """The data set of a folder, or its split (default: train).

    The files are read in the order in which `datasets` lists them. Raises CorpusError for what is missing
    or damaged, SpecError for a split that is not there.
    """
    name, part = folder.resolve().name, folder
    if (folder / DICT_FILE).is_file():
        split = split or "train"
        part = folder / _known_split(folder, split)
    elif split is not None:
        raise SpecError(f"split = '{split}' has no effect on {folder}, which is one data set; leave it out")
    paths = _data_files(part)

    def files() -> list[InputFile]:
        names = [f"{path.stem}:" if len(paths) > 1 else "" for path in paths]
        return [
            stamped(InputFile("Arrow", str(path), name, text_field=text_field))
            for path, name in zip(paths, names, strict=True)
        ]

    licence = str(_read(part / INFO_FILE).get("license") or "unknown")
    card = {"source": name, **({"split": split} if split else {}), "licence": licence}
    signature = files_signature([part / STATE_FILE, *paths], root=folder)
    place = fingerprint([str(part.resolve()), text_field])
    return Source(slug(name), signature, card, lambda: read_files(files()), files, place)


def _known_split(folder: Path, split: str) -> str:
    splits = _read(folder / DICT_FILE).get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise CorpusError(f"{folder / DICT_FILE} is damaged; save the data set again")
    if split not in splits:
        has = f"it has {', '.join(splits)}" if splits else "it has none"
        raise SpecError(f"{folder} has no split '{split}' ({has}); {nearest(split, splits)}")
    return split


def _data_files(folder: Path) -> list[Path]:
    listed = _read(folder / STATE_FILE).get("_data_files")
    try:
        paths = [folder / entry["filename"] for entry in listed or []]
    except (TypeError, KeyError):
        raise CorpusError(f"{folder / STATE_FILE} is damaged; save the data set again") from None
    for path in paths:
        if not path.is_file():
            raise CorpusError(f"{path} is missing; copy or save the data set again")
    return paths


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CorpusError(f"{file} is missing; copy or save the data set again") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{file} cannot be read ({error}); copy or save the data set again") from None
    if not isinstance(value, dict):
        raise CorpusError(f"{file} is damaged; copy or save the data set again")
    return value
