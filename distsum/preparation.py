"""From inputs and options to a job that could start now: what it reads, how it is cut, and what speaks against it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

import msgspec

from distsum import dtypes
from distsum.errors import (
    BadInputError,
    InputListError,
    JobError,
    OutputError,
    PlanError,
    UsageError,
)
from distsum.formats.registry import by_name, by_suffix
from distsum.jobs import JobRecord, check_like_first
from distsum.machine import usable_cpus
from distsum.manifest import Input, Manifest, NodeKeys
from distsum.messages import JobSpec
from distsum.partials import LONGEST_NAME_BYTES, node_context
from distsum.planning import (
    BODY_BYTES,
    BUFFER_BYTES,
    Limits,
    PlanReport,
    Workload,
    choose,
    plan_candidates,
    rates,
    with_room_to_arrive,
)
from distsum.reductions import REDUCTIONS, check_output_dtype
from distsum.request import Options, PlanSummary, ReductionName
from distsum.stores.routing import (
    LONGEST_KEY_BYTES,
    RoutingStore,
    absolute,
    absolute_folder,
    bucket_of,
    check_known,
    excess_key_bytes,
    is_remote,
)
from distsum.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distsum.formats.base import Format, Layout
    from distsum.stores.base import Store


class Prepared(msgspec.Struct):
    """A job that could start now."""

    record: JobRecord
    manifest: Manifest
    report: PlanReport


def plan(
    inputs: Sequence[bytes], reduction: ReductionName, options: Options, output: bytes | None = None
) -> PlanReport:
    """Return what would run, without running it.

    Args:
        inputs: Paths in the order in which they are to be added.
        reduction: For example ``mean``.
        options: As for ``run``.
        output: As for ``run``; None for some .npy file.

    Raises:
        DistsumError: What ``run`` would raise before it starts.
    """
    with contextlib.closing(RoutingStore()) as store:
        if output is not None:
            check_output(output, inputs, store, force=options.force)
        return prepare(reduction, inputs, output or b"result.npy", options, store).report


def prepare(
    reduction_name: ReductionName, inputs: Sequence[bytes], output: bytes, options: Options, store: Store
) -> Prepared:
    """Look at the inputs, choose a plan and describe the job; nothing is written.

    Raises:
        UsageError: What was asked for cannot be done.
        UnreachableError: A bucket cannot be used.
        JobError: An input is bad, by its size or as the first one.
    """
    if not inputs:
        raise InputListError("there are no inputs")
    if reduction_name not in REDUCTIONS:
        raise UsageError(f"there is no reduction '{printable(reduction_name)}'; there are {', '.join(REDUCTIONS)}")
    reduction = REDUCTIONS[reduction_name]
    input_format = _input_format(inputs[0], options)
    output_format = by_suffix(output)
    if output_format is None:
        raise OutputError(f"{printable(output)}: the suffix tells no format; write .npy, .raw or .txt")
    work = absolute_folder(os.fsencode(options.work_dir) if options.work_dir is not None else output + b".distsum")
    if is_remote(work):
        if (excess := excess_key_bytes(work, LONGEST_NAME_BYTES)) > 0:
            raise UsageError(
                f"the work folder {printable(work)} has a name of {excess} bytes too many: with what is written "
                f"into it, keys would be longer than the {LONGEST_KEY_BYTES:,} bytes that S3 takes; choose another"
            )
        store.preflight(bucket_of(work))
    names = _Names(inputs, store)
    layout = _first_layout(names, input_format, options, store)
    manifest = Manifest(_identified(names, input_format, layout, reduction_name, options, store))
    planes = reduction.planes(layout.dtype)
    # What is computed here has this machine's byte order, unless another is asked for.
    out_dtype = options.out_dtype or dtypes.parse_dtype(reduction.result(layout.dtype).lstrip("<>|="))
    check_output_dtype(reduction, layout.dtype, out_dtype)
    output_header = output_format.header(out_dtype, layout.shape, fortran=layout.fortran)
    number_bytes = output_format.number_bytes(out_dtype)
    least = store.least_range(output, len(output_header) + layout.count * number_bytes)
    held_inputs = options.max_open_files if names.buckets else 0
    workload = Workload(
        files=len(inputs),
        count=layout.count,
        item_bytes=dtypes.itemsize(layout.dtype),
        header_bytes=layout.offset,
        input_bytes=manifest.total_bytes,
        plane_bytes=sum(map(dtypes.itemsize, planes)),
        ranged=input_format.ranged,
        parse_bytes=input_format.parse_bytes,
        staging=options.on_bad_input == "skip" and not input_format.ranged,
        output_header_bytes=len(output_header),
        output_number_bytes=number_bytes,
        least_range_bytes=least,
        transfer_bytes=_transfer_bytes(held_inputs, options.max_open_files, least, work, output),
        held_inputs=held_inputs,
    )
    if options.workers is not None and options.workers < 1:
        raise PlanError(f"--workers {options.workers} does nothing; it must be at least 1")
    if options.max_open_files < 1:
        raise PlanError(f"--max-open-files {options.max_open_files} reads nothing; it must be at least 1")
    limits = Limits(
        workers=options.workers or usable_cpus(),
        memory_bytes=options.memory_bytes,
        fan_in=options.fan_in,
        partition=options.partition,
        tiles=options.tiles,
    )
    candidates = plan_candidates(workload, limits, rates(held_inputs > 0, is_remote(work)))
    chosen, reason = choose(candidates, workload, limits)
    candidate, hold = with_room_to_arrive(candidates[chosen], workload, limits)
    candidates = (*candidates[:chosen], candidate, *candidates[chosen + 1 :])
    spec = JobSpec(
        job="",
        reduction=reduction_name,
        files=len(inputs),
        count=layout.count,
        ranged=input_format.ranged,
        fan_in=options.fan_in,
        exponent=candidate.exponent,
        tile_length=candidate.tile_length,
        format=input_format.name,
        dtype=layout.dtype,
        shape=layout.shape,
        fortran=layout.fortran,
        offset=layout.offset,
        header=layout.header,
        on_bad_input=options.on_bad_input,
        max_open_files=options.max_open_files,
        buffer_bytes=BUFFER_BYTES,
        hold_bytes=hold,
        work=work,
        output=b"",
        output_format=output_format.name,
        output_dtype=out_dtype,
        output_header=output_header,
        output_number_bytes=number_bytes,
        worker_bytes=candidate.worker_bytes,
    )
    root = NodeKeys(node_context(spec, 0)).key([manifest.records(0, len(manifest))])
    job = hashlib.sha256(root.encode() + absolute(output)).hexdigest()[:12]
    spec = msgspec.structs.replace(spec, job=job)
    notes = []
    if not input_format.ranged and limits.workers > 1:
        notes.append(f"{input_format.name} files cannot be read by index range, so the arrays are not cut into tiles")
    report = PlanReport(
        files=len(inputs),
        count=layout.count,
        shape=layout.shape,
        dtype=layout.dtype,
        format=input_format.name,
        input_bytes=manifest.total_bytes,
        ranged=input_format.ranged,
        workers=limits.workers,
        memory_bytes=limits.memory_bytes,
        candidates=candidates,
        chosen=chosen,
        reason=reason,
        notes=tuple(notes),
    )
    record = JobRecord(
        spec=spec,
        output=absolute(output),
        replace=options.force,
        keep_partials=options.keep_partials,
        digest=options.digest,
        raw_dtype=options.dtype,
        input_bytes=manifest.total_bytes,
        tasks=candidate.tasks,
        plan=PlanSummary(
            partition=candidate.partition,
            fan_in=options.fan_in,
            tiles=candidate.tiles,
            phases=candidate.phases,
            worker_bytes=candidate.worker_bytes,
        ),
    )
    return Prepared(record, manifest, report)


def _transfer_bytes(held_inputs: int, ahead: int, least: int, work: bytes, output: bytes) -> int:
    """Return what is held of objects on their way, beside what an input may be given more."""
    # Where the work folder is remote, also of a node that is stored on the way, while children are opened ahead.
    bodies = (held_inputs or ahead) + 1 if is_remote(work) else held_inputs
    reading = bodies * (BUFFER_BYTES + BODY_BYTES)
    # A range of the output is collected until it makes two parts, since its last must not be too short.
    return reading + (2 * least + BUFFER_BYTES if is_remote(output) else 0)


def check_output(output: bytes, inputs: Sequence[bytes], store: Store, *, force: bool) -> None:
    """Make sure that a result can be written.

    Raises:
        OutputError: It exists, is an input, or its folder is not there or cannot be written.
        UnreachableError: Its bucket cannot be used.
        UsageError: It is an URI of another kind.
    """
    shown = printable(output)
    if b"\0" in output:
        raise OutputError(f"{shown} holds a NUL byte, which no path does")
    if not output:
        raise OutputError("the output is an empty name; check the variables in the command")
    check_known(output)
    if is_remote(output):
        _check_object(output, inputs, store, force=force)
        return
    folder, name = os.path.split(os.path.abspath(output))
    if not os.path.isdir(folder):
        raise OutputError(f"{shown}: there is no folder {printable(folder)}; make it first")
    if os.path.isdir(output):
        raise OutputError(f"{shown} is a folder; name a file in it")
    if os.path.lexists(output):
        there = os.path.realpath(output)
        if any(path.endswith(os.path.basename(there)) and os.path.realpath(path) == there for path in inputs):
            raise OutputError(f"{shown} is one of the inputs; choose another output")
        if not force:
            raise OutputError(f"{shown} exists; use --force to replace it")
    # Permissions don't tell all: a disk may be mounted for reading only, and a name may be too long for it. So a file
    # with a name as long as the longest that will be needed is made, and is gone at once.
    trial = os.path.join(folder, b".%s.%s.distsum-part" % (name, os.urandom(4).hex().encode()))
    try:
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(trial)
    except OSError as error:
        raise OutputError(
            f"{shown}: no file of this name can be written into {printable(folder)} ({error.strerror}); "
            "choose another output"
        ) from error


def _check_object(output: bytes, inputs: Sequence[bytes], store: Store, *, force: bool) -> None:
    shown = printable(output)
    if output.endswith(b"/"):
        raise OutputError(f"{shown} is a folder; name an object in it")
    if (excess := excess_key_bytes(output)) > 0:
        raise OutputError(
            f"{shown}: this key has {LONGEST_KEY_BYTES + excess:,} bytes, and S3 takes at most {LONGEST_KEY_BYTES:,}; "
            "choose a shorter one"
        )
    store.preflight(bucket_of(output))
    if output in inputs:
        raise OutputError(f"{shown} is one of the inputs; choose another output")
    if not force and store.exists(output):
        raise OutputError(f"{shown} exists; use --force to replace it")


def _input_format(first: bytes, options: Options) -> Format:
    if options.format != "auto":
        return by_name(options.format)
    found = by_suffix(first)
    if found is None:
        raise InputListError(f"{printable(first)}: the suffix tells no format; say --format npy, raw or text")
    return found


class _Names:
    """The inputs' names as they are wherever a worker stands. That their buckets can be used is seen on the way.

    Attributes:
        buckets: Those seen so far.
    """

    def __init__(self, paths: Iterable[bytes], store: Store) -> None:
        self.buckets: set[bytes] = set()
        self._paths = paths
        self._store = store

    def __iter__(self) -> Iterator[bytes]:
        prefix = os.path.join(os.getcwdb(), b"")
        for path in self._paths:
            if path.startswith(b"/"):
                yield path
            elif is_remote(path):
                if (bucket := bucket_of(path)) not in self.buckets:
                    self._store.preflight(bucket)
                    self.buckets.add(bucket)
                yield path
            else:
                yield prefix + path


def _first_layout(paths: Iterable[bytes], input_format: Format, options: Options, store: Store) -> Layout:
    """Return the layout that all inputs are compared with: the first one's, or the first good one's when skipping."""
    first_error: BadInputError | None = None
    for path in paths:
        entry = store.identify(path)
        with store.open_input(entry) as reader:
            try:
                return input_format.layout(reader, options.dtype)
            except BadInputError as error:
                if options.on_bad_input == "fail":
                    raise
                first_error = first_error or error
    raise JobError(f"every input is bad; the first: {first_error}")


def _identified(
    paths: Iterable[bytes],
    input_format: Format,
    layout: Layout,
    reduction: ReductionName,
    options: Options,
    store: Store,
) -> Iterator[Input]:
    """Yield the inputs with what pins them; one whose size tells that it is unlike the first fails at once."""
    strict = input_format.ranged and options.on_bad_input == "fail"
    size = layout.offset + layout.data_bytes if strict else -1
    for entry in store.identify_all(paths):
        if strict and entry.size != size:
            check_like_first(entry, input_format, layout, reduction, options.dtype, store)
        yield entry
