"""Mappings that stand in a temporary file: memory does not grow with the number of entries."""

import sqlite3
from collections.abc import ItemsView, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar

from lib.errors import UserError

K = TypeVar("K")
V = TypeVar("V")
#: So many entries that are set one by one are written together.
AT_ONCE = 1000


def temporary_database(table: str) -> sqlite3.Connection:
    """A database in a file without a name, which is gone when nothing uses it any more; half a
    megabyte of it is in memory. `table`: SQL that makes its table.
    """
    database = sqlite3.connect("", isolation_level=None)
    # It never ends its one transaction, and there is no way back in it: nothing is to be kept.
    database.executescript(f"PRAGMA cache_size = -500; PRAGMA journal_mode = OFF; BEGIN; {table}")
    return database


@contextmanager
def mendable_lack_of_room() -> Iterator[None]:
    """Errors: UserError where there is no room for temporary files."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(
            f"a temporary file cannot be written ({error}). Have TMPDIR name a folder with room,"
            " and run again; what is finished is kept."
        ) from error


def fill(database: sqlite3.Connection, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Runs SQL for each row. Errors: as `mendable_lack_of_room`."""
    with mendable_lack_of_room():
        database.executemany(sql, rows)


def found_in(database: sqlite3.Connection, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """The rows that SQL finds; those that it sorts take room, too. Errors: as
    `mendable_lack_of_room`.
    """
    with mendable_lack_of_room():
        yield from database.execute(sql, values)


class StoredMapping(MutableMapping[K, V]):
    """A mapping in the order of its keys, which are texts or whole numbers, as are its values. It
    must not change while one goes through it.
    """

    def __init__(self, entries: Iterable[tuple[K, V]] = ()) -> None:
        """Errors: as those of `fill`, here and wherever entries are set."""
        self._database = temporary_database(
            "CREATE TABLE entries (key PRIMARY KEY, value) WITHOUT ROWID"
        )
        #: One cursor for all: making one is a good part of what finding an entry takes.
        self._finder = self._database.cursor()
        self._waiting: dict[K, V] = {}
        self._write(entries)

    def _write(self, entries: Iterable[tuple[K, V]]) -> None:
        fill(self._database, "REPLACE INTO entries VALUES (?, ?)", entries)

    def __setitem__(self, key: K, value: V) -> None:
        self._waiting[key] = value
        if len(self._waiting) == AT_ONCE:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if self._waiting:
            self._write(self._waiting.items())
            self._waiting.clear()

    def __getitem__(self, key: K) -> V:
        self._write_waiting()
        found: tuple[V] | None = self._finder.execute(
            "SELECT value FROM entries WHERE key = ?", (key,)
        ).fetchone()
        if found is None:
            raise KeyError(key)
        return found[0]

    def __delitem__(self, key: K) -> None:
        if not self.select("DELETE FROM entries WHERE key = ?", key).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self.items())

    def __len__(self) -> int:
        (number,) = self.select("SELECT count(*) FROM entries").fetchone()
        return int(number)

    def items(self) -> ItemsView[K, V]:
        """The entries, read one after the other and not each by its key."""
        return _Entries(self)

    def by_value(self) -> Iterator[K]:
        """The keys in the order of their values."""
        return (key for (key,) in self._found("SELECT key FROM entries ORDER BY value"))

    def select(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Runs SQL on the table `entries`, with its columns `key` and `value`."""
        self._write_waiting()
        return self._database.execute(sql, values)

    def _found(self, sql: str) -> Iterator[tuple[Any, ...]]:
        self._write_waiting()
        return found_in(self._database, sql)


class _Entries(ItemsView[K, V]):
    def __init__(self, mapping: StoredMapping[K, V]) -> None:
        super().__init__(mapping)
        self._entries = mapping

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._entries._found("SELECT key, value FROM entries ORDER BY key")
