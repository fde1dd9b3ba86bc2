"""A job whose tasks are folded one at a time in this process, with account of what is opened and stored."""

from __future__ import annotations

import itertools
import math
import os
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from distsum.jobs import Job
from distsum.manifest import NodeKeys
from distsum.messages import RunTask, TaskId
from distsum.partials import children_uri, node_context, partial_uri
from distsum.preparation import prepare
from distsum.stores.local import LocalStore
from distsum.tree import Tree
from distsum.worker.attempt import Attempt
from distsum.worker.folding import JobFolder, TaskResult
from distsum.worker.nesting import NodeFold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from distsum.manifest import Input
    from distsum.request import Options
    from distsum.stores.base import Buffer
    from distsum.stores.local import LocalReader


class WatchedStore(LocalStore):
    """A local store that tells what is opened and put.

    Attributes:
        opened: Inputs and partials, in order.
        put_uris: What was stored, in order.
        contents: And what is in it.
        on_open: Called before an input is opened.
        on_put: Called before something is stored, with its bytes.
        on_delete: Called before something is removed.
        removes: Whether it removes what it is told to.
    """

    def __init__(self) -> None:
        self.opened: list[bytes] = []
        self.put_uris: list[bytes] = []
        self.contents: dict[bytes, bytes] = {}
        self.on_open: Callable[[bytes], None] = lambda uri: None
        self.on_put: Callable[[bytes, int], None] = lambda uri, size: None
        self.on_delete: Callable[[bytes], None] = lambda uri: None
        self.removes = True

    def open_input(self, entry: Input, offset: int = 0, size: int = 0, *, head: int = 0, hold: int = 0) -> LocalReader:
        self.on_open(entry.uri)
        self.opened.append(entry.uri)
        return super().open_input(entry, offset, size, head=head, hold=hold)

    def open_all(self, uris: Sequence[bytes], size: int, ahead: int) -> Iterator[LocalReader | None]:
        for uri in uris:
            reader = self.open(uri)
            if reader is not None:
                self.opened.append(uri)
            yield reader

    def put(self, uri: bytes, buffers: Sequence[Buffer]) -> int:
        content = b"".join(buffers)
        self.on_put(uri, len(content))
        self.put_uris.append(uri)
        self.contents[uri] = content
        return super().put(uri, buffers)

    def delete(self, uri: bytes) -> None:
        self.on_delete(uri)
        if self.removes:
            super().delete(uri)


class Tasks:
    """One job; its phases are folded with ``fold_all``, or tasks with ``fold``.

    Attributes:
        store: Where all lies.
        tree: Its tree.
        spec: The job as workers know it.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        output: Path,
        options: Options,
        reduction: Any = "mean",
        checkpoint_seconds: float = math.inf,
    ) -> None:
        self.store = WatchedStore()
        self.paths = [os.fsencode(path) for path in inputs]
        prepared = prepare(reduction, self.paths, os.fsencode(output), options, self.store)
        spec = msgspec.structs.replace(prepared.record.spec, checkpoint_seconds=checkpoint_seconds)
        self.job = Job(msgspec.structs.replace(prepared.record, spec=spec), prepared.manifest, self.store)
        self.job.store_inputs()
        self.job.begin()
        self.spec = self.job.spec
        self.tree = Tree(files=self.spec.files, fan_in=self.spec.fan_in, exponent=self.spec.exponent)
        self.folder = JobFolder(self.store, self.spec, lambda: 0)
        self._prepared = prepared
        self._attempts = 0

    def attempt(self, phase: int = 1, tile: int = 0, index: int = 0, **changes: Any) -> Attempt:
        self._attempts += 1
        task = TaskId(self.spec.job, phase, tile, index)
        return Attempt(RunTask(task, self.spec.work, **({"attempt": self._attempts} | changes)))

    def fold(self, attempt: Attempt) -> TaskResult:
        return self.folder.fold(attempt, 0.0)

    def fold_all(self, **changes: Any) -> bytes:
        """Fold every task, and return the result's bytes."""
        for phase in range(1, self.tree.phases + 1):
            for tile in range(self.spec.tiles):
                for index in range(self.tree.tasks(phase)):
                    self.fold(self.attempt(phase, tile, index, **changes))
        return self.result()

    def result(self) -> bytes:
        with open(self.spec.output, "rb") as file:
            return file.read()

    def key(self, tile: int, low: int, high: int) -> str:
        """Return the key of the node over a range of inputs."""
        return NodeKeys(node_context(self.spec, tile)).key([self._prepared.manifest.records(low, high)])

    def partial(self, phase: int, tile: int, index: int) -> bytes:
        """Return where a node of a phase is stored."""
        return partial_uri(self.spec.work, self.key(tile, *self.tree.inputs(phase, index)))

    def nested(self, tile: int, low: int, high: int) -> bytes:
        """Return where a node inside a task is stored."""
        return children_uri(self.spec.work, self.spec.job) + b"/" + self.key(tile, low, high).encode()

    def nodes(self) -> Iterator[tuple[int, int]]:
        """Yield every node of the canonical tree that has more than one input, as a range of inputs."""
        seen = set()
        for level in range(1, self.tree.levels + 1):
            span = self.spec.fan_in**level
            for low in range(0, self.spec.files, span):
                node = low, min(self.spec.files, low + span)
                if node not in seen and node[1] - low > 1:
                    seen.add(node)
                    yield node

    def store_nested(self, nodes: Sequence[tuple[int, int, int]]) -> None:
        """Fold the nodes (tile, first input, end) for themselves, and store them where nodes inside tasks are."""
        deep = msgspec.structs.replace(self.spec, exponent=max(1, self.tree.levels), checkpoint_seconds=math.inf)
        folder = JobFolder(self.store, deep, lambda: 0)
        parts = folder._parts
        for tile, low, high in nodes:
            attempt = self.attempt(tile=tile)
            fold = NodeFold(parts, attempt, (low, high))
            with np.errstate(all="ignore"):
                fold.run()
                planes, inputs = parts.accumulators.top()
            uri = self.nested(tile, low, high)
            parts.partials.store(uri, planes, inputs, tuple(fold.skipped), attempt)
        folder.close()
        self.store.opened.clear()
        self.store.put_uris.clear()

    def stored_names(self) -> set[str]:
        """Return the keys of the sums that are stored inside tasks."""
        return {name.decode() for name in self.store.list(children_uri(self.spec.work, self.spec.job))}

    def stored_sums(self, tile: int, inputs: tuple[int, int]) -> set[tuple[int, int]]:
        """Return which of a task's sums are stored, of all ranges of its inputs that there are."""
        names, (first, last) = self.stored_names(), inputs
        if not names:
            return set()
        ranges = itertools.combinations(range(first, last + 1), 2)
        return {(low, high) for low, high in ranges if self.key(tile, low, high) in names}

    def opened_inputs(self) -> list[int]:
        """Return the inputs that were opened, by their indices."""
        places = {path: index for index, path in enumerate(self.paths)}
        return [places[uri] for uri in self.store.opened if uri in places]

    def close(self) -> None:
        self.folder.close()
