"""One task: fold a node's children in the order of the canonical tree, store it, and at the root write the result."""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from distsum.errors import BadInputError, DiskFullError, InexactError, PartialError
from distsum.formats.registry import by_name
from distsum.manifest import ManifestReader
from distsum.messages import Effort, JobSpec, Skipped, TaskId
from distsum.partials import manifest_uri, partial_uri, spec_uri
from distsum.reductions import REDUCTIONS, cast
from distsum.slices import node_slices
from distsum.tree import Tree, levels_above
from distsum.worker.accumulators import Accumulators
from distsum.worker.adding import BadChildError, InputAdder
from distsum.worker.checkpoints import StoringTimes
from distsum.worker.nesting import NodeFold, Parts
from distsum.worker.partial_io import PartialIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from distsum.stores.base import Store
    from distsum.worker.attempt import Attempt

    Array = npt.NDArray[Any]


class NoSuchChildError(Exception):
    """A task was to be made in part, and has no such part."""


class TaskResult(msgspec.Struct, frozen=True):
    """What a task made; see ``messages.TaskSucceeded``."""

    inputs: int
    skipped: tuple[Skipped, ...]
    reused: bool
    receipt: bytes
    effort: Effort


class JobFolder:
    """Folds the tasks of one job, one at a time, in buffers that are made once.

    Args:
        store: Where everything lies.
        spec: The job.
        peak_bytes: Tells the worker's peak memory, for its report.
        times: What storing partials took in the jobs before, if anything is known of that.
    """

    def __init__(
        self, store: Store, spec: JobSpec, peak_bytes: Callable[[], int], times: StoringTimes | None = None
    ) -> None:
        times = times or StoringTimes()
        self._store = store
        self._spec = spec
        self._peak_bytes = peak_bytes
        self._reduction = REDUCTIONS[spec.reduction]
        planes = self._reduction.planes(spec.dtype)
        length = min(spec.tile_length, spec.count)
        levels = max(1, min(spec.exponent, levels_above(spec.files, spec.fan_in)))
        accumulators = Accumulators(self._reduction, planes, length, levels, spec.fan_in)
        buffer = np.empty(spec.buffer_bytes, np.uint8)
        source = store.open(manifest_uri(spec.work, spec.job))
        if source is None:
            raise PartialError(f"job {spec.job} has no list of inputs in its work folder")
        self._manifest_source = source
        self._parts = Parts(
            store=store,
            spec=spec,
            tree=Tree(files=spec.files, fan_in=spec.fan_in, exponent=spec.exponent),
            manifest=ManifestReader(source),
            accumulators=accumulators,
            inputs=InputAdder(store, spec, accumulators, buffer),
            partials=PartialIO(
                store,
                accumulators,
                planes,
                buffer,
                spec.max_open_files,
                spec.work,
                spec_uri(spec.work, spec.job),
                times,
            ),
            times=times,
        )

    def close(self) -> None:
        """Let go of the list of inputs."""
        self._manifest_source.close()

    def fold(self, attempt: Attempt, waiting_seconds: float) -> TaskResult:
        """Make a task's node, unless it is stored already, and at the root write its range of the result.

        Of an attempt at one part of the node that part is made and stored, and no more.

        Raises:
            BadChildError: An input is bad, and the job does not skip such.
            InputChangedError: An input is not what the job's list pins.
            ChildrenMissingError: Partials of the phase below must be made again.
            NoSuchChildError: The node has no such part.
            InexactError: The result must be exact and does not fit.
            StorageError: Reading or writing failed.
            TaskCancelledError: The attempt is cancelled.
        """
        attempt.check()
        with np.errstate(all="ignore"):  # NaN, infinities and overflow are results here, not faults.
            return self._fold(attempt, waiting_seconds)

    def _fold(self, attempt: Attempt, waiting_seconds: float) -> TaskResult:
        spec, parts, task = self._spec, self._parts, attempt.task
        began, counted = perf_counter(), attempt.reading_seconds + attempt.adding_seconds
        start = spec.tile(task.tile)[0]
        node = self._node(attempt)
        first = node.inputs(*node.children)[0]
        attempt.expected_bytes = node.expected_bytes
        key = node.own_key()
        whole = attempt.child is None
        uri = partial_uri(spec.work, key) if whole else node.nested_uri(key)
        at_root = whole and task.phase == parts.tree.phases
        node.reset()
        stored = parts.partials.load(uri, attempt) if at_root else parts.partials.head(uri, attempt)
        # To learn what the node is and whether it is stored takes requests, too.
        attempt.reading_seconds += perf_counter() - began - (attempt.reading_seconds + attempt.adding_seconds - counted)
        sliced = whole and attempt.sliced and self._is_sliceable(task)
        if stored is None and not sliced:
            stored = node.run()
        if stored is None:
            planes, inputs = node.run_sliced() if sliced else node.top()
            skipped = tuple(node.skipped)
            try:
                parts.partials.store(uri, planes, inputs, skipped, attempt)
            except DiskFullError:
                # Sums that were stored on the way may have taken the room, and are of no use now.
                node.make_room()
                parts.partials.store(uri, planes, inputs, skipped, attempt)
            node.remove_stored()
        else:
            inputs, skipped = stored.inputs, stored.skipped
            planes = parts.accumulators.lowest
        if skipped and spec.on_bad_input == "fail":
            # The partial comes from a run that skipped bad inputs; this one was told to stop at them.
            worst = min(skipped, key=lambda each: each.index)
            uri_at_fault = next(parts.manifest.inputs(first + worst.index, first + worst.index + 1)).uri
            raise BadChildError(first + worst.index, BadInputError(uri_at_fault, worst.reason))
        receipt = self._write_result(planes, inputs, start, attempt) if at_root and inputs else b""
        return TaskResult(
            inputs=inputs,
            skipped=tuple(Skipped(first + each.index, each.reason) for each in skipped),
            reused=stored is not None,
            receipt=receipt,
            effort=attempt.effort(waiting_seconds, self._peak_bytes(), self._store.take_latencies()),
        )

    def _is_sliceable(self, task: TaskId) -> bool:
        """Whether a node can be put together from slices: it has some, and all its children go into one accumulator."""
        return not self._parts.tree.splits(task.phase, task.index) and bool(
            node_slices(self._spec, task.phase, task.tile)
        )

    def _node(self, attempt: Attempt) -> NodeFold:
        """Return what an attempt is to make: a task's node, or one part of it."""
        tree, task, number = self._parts.tree, attempt.task, attempt.child
        children = tree.children(task.phase, task.index)
        if number is None:
            return NodeFold(self._parts, attempt, children)
        slices = node_slices(self._spec, task.phase, task.tile)
        parts = slices if attempt.sliced else tree.splits(task.phase, task.index)
        if not 0 <= number < len(parts):
            raise NoSuchChildError(
                f"child {number} of a node was asked for that has {len(parts)}, counted from 0; this is a fault in "
                "distsum"
            )
        if attempt.sliced:
            return NodeFold(self._parts, attempt, children, number)
        return NodeFold(self._parts, attempt, parts[number])

    def _write_result(self, planes: list[Array], inputs: int, start: int, attempt: Attempt) -> bytes:
        attempt.check()
        began = perf_counter()
        header = self._spec.output_header
        # The header goes with the first numbers: a store may not take a range as short as it is alone.
        offset = len(header) + start * self._spec.output_number_bytes if start else 0
        content: Iterator[bytes | memoryview] = self._encoded(planes, inputs, start, attempt)
        if not start:
            content = itertools.chain((header,), content)
            attempt.bytes_written += len(header)
        receipt = self._store.write_range(self._spec.output, offset, content)
        attempt.objects_written += 1
        attempt.storing_seconds += perf_counter() - began
        return receipt

    def _encoded(self, planes: list[Array], inputs: int, start: int, attempt: Attempt) -> Iterator[bytes | memoryview]:
        output = by_name(self._spec.output_format)
        dtype = np.dtype(self._spec.output_dtype)
        # A quarter of the buffer, since finishing and encoding take copies of their own.
        block = max(1, self._spec.buffer_bytes // (4 * max(16, self._spec.output_number_bytes)))
        for low in range(0, len(planes[0]), block):
            attempt.check()
            part = [plane[low : low + block] for plane in planes]
            try:
                values = cast(self._reduction.finish(part, inputs), dtype)
            except InexactError as error:
                raise InexactError(start + low + error.position, error.reason) from error
            encoded = output.encode(values)
            attempt.bytes_written += len(encoded)
            yield encoded
