"""A paper as a value: its figures in order, what each claims, and the study that asks it again."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One figure (or result) of a paper: its claim there, and where the answer is found here."""

    figure: str
    """As the paper calls it: "Figure 10 left"."""
    title: str
    """The question in a few words."""
    claim: str
    """What the paper says and shows, with its numbers, in words of one's own."""
    study: str
    """A built-in study, or the path of a study file beside the paper's file."""
    later: str = ""
    """Where later work agrees, disagrees or sets limits, with its authors and years."""
    primary: bool = False
    """Whether the study's first claim is one of those that share the error rate of the paper's page."""
    figures: tuple[str, ...] = ()
    """Names of the study's figures that are shown at once (`*` stands for anything, as in a name that
    ends with a corpus); none: its first."""
    tables: tuple[str, ...] = ()
    """The same for tables; none: no table."""
    claims: tuple[str, ...] = ()
    """Names of the claims that belong here, where a study answers several figures (with `*` as well); none:
    all that no other entry names."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """All studies of a paper, run together and read figure by figure. A file defines one as `PAPER`."""

    name: str
    """Lower-case words with underscores; also the folder `studies/<name>-<scale>`."""
    title: str
    lead: str
    """What the page is about, in two or three sentences."""
    source: str
    """Authors, year, title and where it appeared."""
    entries: tuple[Entry, ...]
    """In the paper's order."""

    @property
    def studies(self) -> tuple[str, ...]:
        """Each study once, in the order of its first entry."""
        return tuple(dict.fromkeys(entry.study for entry in self.entries))

    def home(self, study: str) -> Entry:
        """The entry at which a study shows all that no entry names: its primary one, or else its first."""
        own = [entry for entry in self.entries if entry.study == study]
        return next((entry for entry in own if entry.primary), own[0])
