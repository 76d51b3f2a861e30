"""A new study file: a commented one that runs as it is, to be edited."""

import keyword
import re
from importlib.resources import files
from pathlib import Path

from repetita.errors import SpecError
from repetita.journal.disk import storage_errors
from repetita.study.find import built_in

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def new_study(name: str, *, folder: str | Path = ".") -> Path:
    """Writes `<folder>/<name>.py`, a study of seconds that runs as it is; its path.

    The name is lower-case words joined by underscores. Raises SpecError for a name that cannot be one, for
    that of a built-in study, and where the file is there already; StorageError where it cannot be written.

    >>> from repetita import new_study, plan_study
    >>> file = new_study("another_question")
    >>> print(file)
    another_question.py
    >>> plan_study(file, scale="tiny").n_runs
    6
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        words = re.sub(r"[^a-z0-9]+", "_", name.removesuffix(".py").lower()).strip("_")
        hint = words if _NAME.fullmatch(words) and not keyword.iskeyword(words) else "my_question"
        raise SpecError(
            f"'{name}' cannot name a study; use lower-case words joined by underscores, like '{hint}'"
        )
    if name in built_in():
        raise SpecError(f"'{name}' is a built-in study; choose another name")
    path = Path(folder) / f"{name}.py"
    text = files("repetita.study").joinpath("template.txt").read_text(encoding="utf-8")
    text = text.replace("@NAME@", name).replace("@TITLE@", name.replace("_", " ").capitalize())
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise SpecError(f"{path} is there already; choose another name, or remove it first") from None
    return path
