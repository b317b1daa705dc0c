"""Any SQLAlchemy URL: one row per event in the table ``openai_lifecycle_events``, which is created if missing.

An event is in the table once, however often it is written: its key is ``records.event_id``, made of the whole entry
with its span's id and microseconds. The columns are for queries; ``entry`` is the event in full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Engine,
    Float,
    Index,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from openai_lifecycle.events import LifecycleEvent
from openai_lifecycle.records import COLUMNS, to_row
from openai_lifecycle.sinks import Rejected, Unavailable

_INDEXED: Final = ("timestamp", "trace_id", "model_id")
# Databases cannot index text of unlimited length, MySQL no text at all: these are truncated, `entry` is not.
_LENGTHS: Final = {"event_id": 32, "trace_id": 32, "model_id": 255}
_TYPES: Final[dict[str, Any]] = {
    "text": Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"),  # its TEXT is limited to 64 KB
    "integer": BigInteger,
    "number": Float(53),
    "instant": DateTime(timezone=True),
}
# Characters that PostgreSQL (NUL) and UTF-8 (lone surrogates) cannot store. In `entry` they are escaped.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

EVENTS: Final = Table(
    "openai_lifecycle_events",
    MetaData(),
    *(
        Column(
            column.name,
            String(_LENGTHS[column.name]) if column.name in _LENGTHS else _TYPES[column.kind],
            primary_key=column.name == "event_id",
        )
        for column in COLUMNS
    ),
    *(Index(f"ix_openai_lifecycle_events_{name}", name) for name in _INDEXED),
)


def sqlite_file(url: URL) -> str | None:
    """Return the path of an SQLite database; ``None`` for one in memory, a ``file:`` URI, or another database."""
    path = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and path and not path.startswith((":memory:", "file:"))
    return path if is_file else None


def _make_private(url: URL) -> None:
    """Create the file of an SQLite database for its owner alone; SQLite itself would only follow the umask.

    Raises:
        Unavailable: the file cannot be opened. It says why, which SQLite would not.
    """
    path = sqlite_file(url)
    if path is not None:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise Unavailable(error.strerror or type(error).__name__) from None


class SqlSink:
    """Writes events to the database at ``url``.

    Raises:
        ValueError: SQLAlchemy cannot use the URL, or there is no driver for it.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
            self._url.get_dialect().import_dbapi()
        except NoSuchModuleError:
            raise ValueError("neither a destination nor a database has its scheme") from None
        except ModuleNotFoundError as error:
            raise ValueError(f"the module {error.name} is not installed") from None
        except (SQLAlchemyError, ImportError, AttributeError, ValueError) as error:  # their texts quote it
            raise ValueError(f"SQLAlchemy cannot use it ({type(error).__name__})") from None
        path = sqlite_file(self._url)
        if path is not None:
            self._url = self._url.set(database=os.path.abspath(path))
        self.absolute_url = self._url.render_as_string(hide_password=False)
        self._engine: Engine | None = None

    def write(self, events: Sequence[LifecycleEvent]) -> None:
        """Insert the ``events`` that are not in the table yet, in one transaction.

        Raises:
            Unavailable: the database cannot be reached, is locked, or ended the connection.
            Rejected: the database does not accept the statement.
        """
        rows = {row["event_id"]: row for row in map(_storable, events)}
        try:
            engine = self._connected()
            with engine.begin() as connection:
                known = connection.scalars(select(EVENTS.c.event_id).where(EVENTS.c.event_id.in_(rows)))
                for event_id in known.all():
                    del rows[event_id]
                if rows:
                    connection.execute(insert(EVENTS), list(rows.values()))
        except SQLAlchemyError as error:
            raise _understood(error) from None  # its text quotes the statement

    def _connected(self) -> Engine:
        if self._engine is None:
            _make_private(self._url)
            engine = create_engine(self._url, hide_parameters=True, pool_pre_ping=True, pool_size=1)
            try:
                _create_table(engine)
            except SQLAlchemyError:
                engine.dispose()
                raise
            self._engine = engine
        return self._engine

    def flush(self) -> None:
        """Do nothing: what was written is committed."""

    def close(self) -> None:
        """Close the connection."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


def _create_table(engine: Engine) -> None:
    try:
        EVENTS.metadata.create_all(engine)
    except DatabaseError as error:
        if error.statement is None:  # there is no connection
            raise
        EVENTS.metadata.create_all(engine)  # another process created it at the same moment


def _storable(event: LifecycleEvent) -> dict[str, Any]:
    row = to_row(event)
    for name, value in row.items():
        if isinstance(value, str):
            row[name] = _UNSTORABLE.sub("\ufffd", value)[: _LENGTHS.get(name)]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            row[name] = None
    return row


def _understood(error: SQLAlchemyError) -> Unavailable | Rejected:
    cause = type(error.orig).__name__ if isinstance(error, DBAPIError) else type(error).__name__
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or isinstance(error, (OperationalError, InterfaceError, InternalError)):
        return Unavailable(f"the database is not available ({cause})")
    return Rejected(f"the database does not accept the events ({cause})")
