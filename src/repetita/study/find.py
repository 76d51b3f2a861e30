"""A study or a paper by its name or its file; such a file is code, run only those you trust."""

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from repetita.errors import RepetitaError, SpecError, nearest
from repetita.study.paper import Paper
from repetita.study.plan import Study

BUILT_IN = "repetita.studies"
PAPER_SUFFIX = "_paper"
"""How the module of a paper ends; all others are studies."""


class Found(NamedTuple):
    """A study and where it came from."""

    study: Study
    reference: str
    """What finds it again from any folder: a built-in name, or the absolute path of a file."""
    sha256: str
    """Hash of the file that defines it."""


class FoundPaper(NamedTuple):
    """A paper and where it came from."""

    paper: Paper
    reference: str
    """See `Found.reference`."""

    def study(self, name: str) -> str:
        """Reference of one of its studies: a built-in name, or a file beside that of the paper."""
        return str(Path(self.reference).parent / name) if name.endswith(".py") else name


def built_in() -> tuple[str, ...]:
    """Names of the studies that come with the package, sorted."""
    return tuple(name for name in _modules() if not name.endswith(PAPER_SUFFIX))


def papers() -> tuple[str, ...]:
    """Names of the papers that come with the package, sorted."""
    return tuple(name for name in _modules() if name.endswith(PAPER_SUFFIX))


def _modules() -> list[str]:
    package = importlib.import_module(BUILT_IN)
    return sorted(item.name for item in pkgutil.iter_modules(package.__path__) if item.name[0] != "_")


def find_paper(reference: str | Path) -> FoundPaper | None:
    """The paper named `reference`, a built-in name or a path that ends in `.py`; None where it is none.

    Raises SpecError for a file that cannot be run.
    """
    text = str(reference)
    path = Path(text)
    if path.suffix != ".py":
        name = text.replace("-", "_").lower()
        if name not in papers():
            return None
        paper = importlib.import_module(f"{BUILT_IN}.{name}").PAPER
        return FoundPaper(paper, name)
    if not path.is_file():
        return None
    path = path.resolve()
    paper = getattr(_run_file(path, digest=_hash(path)), "PAPER", None)
    return FoundPaper(paper, str(path)) if isinstance(paper, Paper) else None


def find_study(reference: str | Path) -> Found:
    """The study named `reference`: a built-in name or a path that ends in `.py`.

    Raises SpecError for an unknown name (with the nearest), a missing file, a file that cannot be run and a
    file without a `STUDY`.
    """
    text = str(reference)
    path = Path(text)
    if path.suffix != ".py":
        name = text.replace("-", "_").lower()
        if name in papers():
            raise SpecError(
                f"{name} is a paper of several studies and this takes one; name one: {', '.join(built_in())}"
            )
        if name not in built_in():
            hint = nearest(name, [*built_in(), *papers()])
            raise SpecError(
                f"no study is named '{text}'; {hint} (a study of your own is given as a path to its .py)"
            )
        module = importlib.import_module(f"{BUILT_IN}.{name}")
        return Found(_study_of(module, name=name), name, _hash(Path(str(module.__file__))))
    if not path.is_file():
        raise SpecError(f"no study file {text}; give the path of a Python file that defines STUDY")
    path = path.resolve()
    digest = _hash(path)
    return Found(_study_of(_run_file(path, digest=digest), name=path.name), str(path), digest)


def _run_file(path: Path, *, digest: str) -> ModuleType:
    """The module of a file, run once for each place and content."""
    place = hashlib.sha256(str(path).encode()).hexdigest()
    name = f"repetita_study_{place[:8]}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except RepetitaError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        line = _line_in(error, path=path)
        raise SpecError(
            f"{path}{line}: {type(error).__name__}: {error}; a study file must run and define STUDY"
        ) from error
    return module


def _line_in(error: Exception, *, path: Path) -> str:
    """`:12` for the line of the study's file at which it failed, or nothing."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _study_of(module: ModuleType, *, name: str) -> Study:
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        found = "defines no STUDY" if study is None else f"has a STUDY that is a {type(study).__name__}"
        raise SpecError(f"{name} {found}; write STUDY = Study(...) from repetita.study.plan at its top level")
    return study


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
