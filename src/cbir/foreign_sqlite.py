"""SQLite files that may be a stranger's, opened as https://sqlite.org/security.html advises."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

_MAGIC = b"SQLite format 3\0"
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 2**29,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_FEW_STEPS = 10_000
"""Steps of SQLite's virtual machine: many times those that a few tables take, and milliseconds."""
_LONGEST = 10_000  # bytes of a statement, and of any other value


def harden(connection: sqlite3.Connection) -> None:
    """Trust neither the schema nor the pages of the file, which may be a stranger's."""
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)


def table_names(path: Path) -> set[str]:
    """The names of the tables and indexes of a SQLite file, without making others beside it.

    Empty if it is no SQLite file, is damaged, or has hundreds of tables; takes bounded time.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return set()
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as database:
            database.set_progress_handler(lambda: 1, _FEW_STEPS)
            harden(database)
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
            database.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST)
            return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, OSError):
        return set()
