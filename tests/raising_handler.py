"""A log handler of an application that has a defect."""

from __future__ import annotations

import logging

from typing_extensions import Self


class Raises(logging.Handler):
    """Raises for each record; as a context manager, it is one of the root logger's handlers."""

    def emit(self, _: logging.LogRecord) -> None:
        """Raise."""
        raise RuntimeError("no disk")

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
