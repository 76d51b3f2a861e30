"""The fixtures of `places` for these tests."""

from tests.study.places import done, done_once, place

__all__ = ["done", "done_once", "place"]
