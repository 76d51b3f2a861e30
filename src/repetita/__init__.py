"""repetita: what language models memorize, how fast, what they forget, what repeated data costs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repetita.study.execute import run_study as run_study
    from repetita.study.publish import report_study as report_study
    from repetita.study.publish import table as table
    from repetita.study.single import measure_run as measure_run
    from repetita.study.single import train_run as train_run

_HOMES = {
    "run_study": "repetita.study.execute",
    "report_study": "repetita.study.publish",
    "table": "repetita.study.publish",
    "train_run": "repetita.study.single",
    "measure_run": "repetita.study.single",
}
"""The public names and where they live: fetched when asked for, so that the import costs nothing."""

__all__ = ["measure_run", "report_study", "run_study", "table", "train_run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'repetita' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
