"""Requests to one index: batches of searches, pages of records, documents, small state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cbir.errors import IndexStateError
from cbir.index.elasticsearch import bodies
from cbir.index.elasticsearch.client import READING, WRITING, Client, Expected, Pauses, json_lines
from cbir.index.elasticsearch.server_errors import in_words, is_passing

_SEARCHES_AT_ONCE = 64
_GET_AT_ONCE = 1000
_CHANGES_OUTRUN = 50
_PARTIAL = "allow_partial_search_results"  # no results from part of an index

Body = Mapping[str, Any]
Change = Callable[[list[Any]], list[Any]]


class Requests:
    """Reads and writes the index behind `alias`. Thread-safe.

    Searches, pages and counts see everything written through this object.
    """

    def __init__(self, client: Client, alias: str, *, write: bool = False) -> None:
        self.client = client
        self.alias = alias
        self.unseen = False
        """Whether there are writes that searches cannot see yet."""
        self._patience = WRITING if write else READING

    def call(
        self,
        method: str,
        what: str,
        body: Body | bytes | None = None,
        *,
        patience: float = READING,
        expected: Expected | None = None,
    ) -> Any:
        """Send one request (see `Client.request`); `what` follows the alias in the path."""
        path = f"/{self.alias}/{what}"
        return self.client.request(method, path, body, patience=patience, expected=expected)

    def refresh(self) -> None:
        """Make all writes visible to searches."""
        self.unseen = False
        self.call("POST", "_refresh", patience=self._patience)

    def count(self, query: Body) -> int:
        """The number of documents that match `query`."""
        self._see_own()
        return int(self.call("POST", "_count", {"query": query}, patience=self._patience)["count"])

    def search(self, body: Body) -> Any:
        """The response to one search body."""
        self._see_own()
        return self.call("POST", f"_search?{_PARTIAL}=false", body)

    def searches(self, asked: Sequence[Body]) -> list[Any]:
        """The responses to search bodies, in the same order."""
        if len(asked) == 1:
            return [self.search(asked[0])]
        self._see_own()
        answers: list[Any] = []
        for start in range(0, len(asked), _SEARCHES_AT_ONCE):
            answers += self._searched(asked[start : start + _SEARCHES_AT_ONCE])
        return answers

    def hits(
        self,
        size: int,
        fields: Body,
        *,
        source: str | None = None,
        after: str = "",
        where: Sequence[Body] = (),
        key: str = "id",
    ) -> Iterator[Body]:
        """The records (of `source`) with an id above `after`, in id order, in pages of `size`.

        `where`: clauses that the records must meet, see `bodies.filters`. `key`: see `bodies.page`.
        """
        while True:
            body = bodies.page(after, size, source=source, fields=fields, where=where, key=key)
            found = self.search(body)["hits"]["hits"]
            yield from found
            if len(found) < size:
                return
            after = found[-1]["sort"][0]

    def documents(self, ids: Sequence[str], fields: Body) -> Iterator[Body]:
        """The documents of `ids` that exist, as last written, in that order."""
        for start in range(0, len(ids), _GET_AT_ONCE):
            wanted = [{"_id": name, **fields} for name in ids[start : start + _GET_AT_ONCE]]
            answer = self.call("POST", "_mget", {"docs": wanted})
            yield from (found for found in answer["docs"] if found.get("found"))

    def rows(self, name: str) -> list[Any]:
        """The rows in the non-record document `name`; empty if it was never written."""
        return _rows(next(self.documents([name], {}), None))

    def change_rows(self, name: str, change: Change) -> list[Any]:
        """Apply `change` to the rows in the document `name`; returns the new rows.

        Calls `change` again if another writer was faster.
        """
        for _ in range(_CHANGES_OUTRUN):
            found = next(self.documents([name], {}), None)
            before = _rows(found)
            after = change(before)
            if after == before:
                return before
            condition = "op_type=create"
            if found is not None:
                condition = "&".join(f"{n}={value}" for n, value in unchanged(found).items())
            what = f"_doc/{quote(name, safe='')}?require_alias=true&{condition}"
            body = {"state": {"rows": after}}
            if self.call("PUT", what, body, patience=WRITING, expected=_is_conflict):
                return after
        raise IndexStateError(
            f"{self.client.url} is being changed by other writers", "try again in a moment"
        )

    def _see_own(self) -> None:
        if self.unseen:
            self.refresh()

    def _searched(self, asked: Sequence[Body]) -> list[Any]:
        """Send one `_msearch` and retry the searches that fail with a transient error."""
        answers: dict[int, Any] = {}
        pauses = Pauses(READING)
        while waiting := [number for number in range(len(asked)) if number not in answers]:
            lines = b"".join(json_lines({_PARTIAL: False}, asked[number]) for number in waiting)
            responses = self.call("POST", "_msearch", lines)["responses"]
            failed = None
            for number, found in zip(waiting, responses, strict=True):
                if "error" not in found:
                    answers[number] = found
                elif failed is None or not is_passing(found["status"], found["error"]):
                    failed = found["status"], found["error"]
            if failed and not (is_passing(*failed) and pauses.wait()):
                raise in_words(self.client.url, *failed)
        return [answers[number] for number in range(len(asked))]


def unchanged(found: Body) -> dict[str, int]:
    """The condition that the document `found` is unchanged."""
    return {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}


def _rows(found: Body | None) -> list[Any]:
    return [] if found is None else list(found["_source"]["state"]["rows"])


def _is_conflict(status: int, _error: Any) -> bool:
    return status == 409
