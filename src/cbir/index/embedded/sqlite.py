"""Connections, transactions and error messages for one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cbir.errors import CbirError, IndexClosedError, IndexReplacedError, IndexStateError
from cbir.foreign_sqlite import harden
from cbir.index.embedded.folder import THUMBNAILS

_BUSY_TIMEOUT = 30.0
_STEPS_BETWEEN_LOOKS = 100_000
"""Steps of SQLite's virtual machine, a few milliseconds, after which Ctrl-C is noticed."""

Check = Callable[[sqlite3.Connection, str], None]
"""Raises `IndexStateError` unless the schema is cbir's; gets the index's name for messages."""


class Database:
    """Many readers and one writer of a SQLite file in WAL mode; `name` is the index in messages.

    A connection serves one thread at a time; `read` borrows an idle one. SQLite errors become
    `IndexStateError`. In a read-only folder the file is opened as immutable, which is safe only
    while nobody writes, so its size and modification time are checked before each use. Another file
    in its place is never mixed with the one that was opened: `IndexReplacedError` is raised.

    The file may be a stranger's. It is opened as https://sqlite.org/security.html advises, and
    every connection begins with `check`, before anything else is read: no view, trigger or
    generated column of the file ever runs.
    """

    def __init__(self, path: Path, name: str, check: Check, *, write: bool = False) -> None:
        self._path = path
        self._name = name
        self._check = check
        self._idle: list[sqlite3.Connection] = []
        self._frozen: tuple[int, int] | None = None
        self._write_lock = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._closed = False
        with self._errors():
            if write:
                pragmas = "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"
                self._writer = self._checked(self._connect("mode=rwc"), *pragmas)
            else:
                self._idle.append(self._open_for_reading())
            self._identity = self._file()

    def check_in_place(self) -> None:
        """Raise `IndexReplacedError` if the file was replaced, moved or deleted since opening.

        Raises `IndexClosedError` if it was closed.
        """
        if self._file() != self._identity:
            raise IndexReplacedError(self._name)
        if self._closed:
            raise IndexClosedError(self._name)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection with a consistent snapshot of the database."""
        with self._errors():
            connection = self._borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection.in_transaction:
                    connection.rollback()
                self._give_back(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable when the block ends, rolled back if it raises."""
        if self._writer is None:
            self.check_in_place()
            raise IndexStateError(f"{self._name} is open for reading only")
        with self._write_lock, self._errors():
            self.check_in_place()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.commit()
            finally:
                if self._writer.in_transaction:
                    self._writer.rollback()

    def close(self) -> None:
        """Close all idle connections; closing the last one merges the log into the file."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _borrow(self) -> sqlite3.Connection:
        self.check_in_place()
        if self._frozen is not None and self._frozen != self._signature():
            while self._idle:
                self._idle.pop().close()
            self._frozen = None
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._open_for_reading()
        try:
            self.check_in_place()
        except IndexReplacedError:
            connection.close()
            raise
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    def _open_for_reading(self) -> sqlite3.Connection:
        """A read connection, which may still merge a dead writer's log into the file."""
        try:
            return self._checked(self._connect("mode=rw"), "PRAGMA query_only=1")
        except sqlite3.OperationalError as error:
            cannot_write = primary_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            if not cannot_write or not self._path.exists():
                raise
        if self._log_size():
            raise IndexStateError(
                f"{self._name} is read-only and has a log that was not merged "
                f"({self._path.name}-wal)",
                f"run cbir verify {self._name} as a user with write permission, or copy the folder",
            )
        signature = self._signature()
        connection = self._checked(self._connect("mode=ro&immutable=1"))
        self._frozen = signature
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?{mode}",
            uri=True,
            timeout=_BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )

    def _checked(self, connection: sqlite3.Connection, *pragmas: str) -> sqlite3.Connection:
        try:
            harden(connection)
            # Python runs signal handlers when it enters a function. SQLite takes what they raise
            # for a wish to stop, so `_errors` raises it again.
            connection.set_progress_handler(lambda: 0, _STEPS_BETWEEN_LOOKS)
            self._check(connection, self._name)
            for pragma in pragmas:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _log_size(self) -> int:
        log = self._path.with_name(self._path.name + "-wal")
        return log.stat().st_size if log.exists() else 0

    def _file(self) -> tuple[int, int] | None:
        """Device and inode of the file that lies there now."""
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_dev, state.st_ino

    def _signature(self) -> tuple[int, int]:
        state = self._path.stat()
        return state.st_size + self._log_size(), state.st_mtime_ns

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise KeyboardInterrupt from error
            raise self._explained(error) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise CbirError(
                f"a value cannot be stored in {self._name}: {error}",
                "text must be valid Unicode, and integers must fit in 64 bits",
            ) from error

    def _explained(self, error: sqlite3.Error) -> IndexStateError:
        file = f"{self._name}/{self._path.name}"
        pictures = self._path.name == THUMBNAILS
        repair = f"cbir verify {self._name} --repair"
        delete = f"delete that file, and run {repair}"
        anew = "index the sources again into a new index"
        what, hint = f"{file}: {error}", f"cbir verify {self._name}"
        match primary_code(error):
            case sqlite3.SQLITE_FULL:
                what = f"the disk is full: {file} cannot grow"
                hint = "free some space and run the same command again; committed changes are kept"
            case sqlite3.SQLITE_NOTADB:
                what = f"{file} is damaged: it is not a database"
                hint = delete if pictures else anew
            case sqlite3.SQLITE_CORRUPT:
                what = f"{file} is damaged"
                hint = delete if pictures else f"{repair}, or index the sources again"
            case 0 if "UTF-8" in str(error):
                what = f"{file} is damaged: a text in it is not UTF-8"
                hint = repair
            case sqlite3.SQLITE_BUSY:
                what = f"{file} is locked by another program"
                hint = "close that program and try again"
            case sqlite3.SQLITE_CANTOPEN if not self._path.exists():
                what, hint = f"{file} is missing", repair if pictures else anew
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                what = f"{file} cannot be opened: {error}"
                hint = "check that it exists, and its permissions"
            case sqlite3.SQLITE_IOERR:
                what = f"{file} cannot be read or written: {error}"
                hint = "check the disk and its free space; committed changes are kept"
        return IndexStateError(what, hint)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of the Python module."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
