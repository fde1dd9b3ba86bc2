"""The plan: what would run, what it costs and what it takes, told before anything runs (pure).

A candidate is a partition (how many files a task adds) and a number of tiles (how many index ranges the arrays are
cut into). Counts of tasks, objects and bytes are exact for well-formed inputs of equal headers; the time is an
estimate that only has to order the candidates. Memory is a bound: what a worker allocates by its own formula, plus a
fixed reserve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from distsum.errors import PlanError
from distsum.slices import slices
from distsum.tree import Tree, levels_above, partition_exponent
from distsum.wording import byte_size, counted

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD_BYTES: Final = 256, 768
"""Of a partial without slices, and with them."""
BUFFER_BYTES: Final = 1 << 20
"""What a worker reads at once: large enough that a call costs nothing, small enough to stay in the cache."""
BODY_BYTES: Final = 1 << 20
"""Of an object that arrives, beside what is held of it: the connection's own buffers, and blocks that are kept."""
RESERVE_BYTES: Final = 6 << 20
"""Beside the accumulators and the buffer: messages, lists of inputs, copies while a result is encoded."""
_CHILD_BYTES: Final = 400
"""A task that folds partials holds the name of each."""
_LONGEST_HOLD: Final = 8 << 20
"""Of an input that arrives over a network; as much as is read in some tenths of a second."""
_SMALLEST_TILE_BYTES: Final = 256 << 10
_TILE_ROUNDING: Final = 512


def partial_head_bytes(numbers: int) -> int:
    """Return what the head of a partial of so many numbers takes at the most, unless inputs were skipped."""
    return _HEAD_BYTES[bool(slices(numbers))]


class Rates(msgspec.Struct, frozen=True):
    """What one worker does in a second, and what things cost, on a store.

    The defaults are those of a local disk in the page cache, where ``benchmarks/planning.py`` measures them; they
    need only be right relative to each other.

    ``waiting_share`` is how much of a phase's longest task is waited for at its end, where all workers are alike and
    so are the tasks. 1 is what Graham's bound allows for: tasks that take what they like.
    """

    read_bytes_per_second: float = 4e9
    parse_bytes_per_second: float = 4e8
    partial_read_bytes_per_second: float = 1e9
    write_bytes_per_second: float = 7e8
    object_seconds: float = 20e-6
    partial_seconds: float = 20e-6
    task_seconds: float = 2e-3
    start_seconds: float = 0.3
    waiting_share: float = 1.0


S3_RATES: Final = Rates(
    read_bytes_per_second=2e8,
    parse_bytes_per_second=1.5e8,
    partial_read_bytes_per_second=2e8,
    write_bytes_per_second=1e8,
    object_seconds=4e-3,
    partial_seconds=20e-3,
    start_seconds=1.5,
    waiting_share=0.25,
)
"""A bucket in the same region: some 20 ms a request, of which five are under way at once where inputs are read.

Tasks over a network take what the network gives, which is much the same for all. So one task a worker, without
partials that would be written and read again, beats more tasks that would only even out the end.
"""


def rates(inputs_remote: bool, work_remote: bool) -> Rates:  # noqa: FBT001 - two of a kind
    """Return the rates for inputs and a work folder on this machine or on another."""
    disk = Rates()
    inputs, work = (S3_RATES if remote else disk for remote in (inputs_remote, work_remote))
    return msgspec.structs.replace(
        inputs,
        partial_read_bytes_per_second=work.partial_read_bytes_per_second,
        write_bytes_per_second=work.write_bytes_per_second,
        partial_seconds=work.partial_seconds,
        start_seconds=max(inputs.start_seconds, work.start_seconds),
    )


class Workload(msgspec.Struct, frozen=True):
    """What is to be reduced.

    Attributes:
        files: Inputs.
        count: Numbers in each.
        item_bytes: Bytes of one number in an input; unused where ``ranged`` is False.
        header_bytes: Bytes before an input's first number.
        input_bytes: Bytes of all inputs together.
        plane_bytes: Bytes of one index in all planes of the reduction.
        ranged: Whether index ranges can be read directly.
        parse_bytes: What the format takes to parse, beyond its buffer.
        staging: Whether a whole input is held before it is added (text where bad inputs are skipped).
        output_header_bytes: Bytes before the output's first number.
        output_number_bytes: Bytes of one number in the output.
        least_range_bytes: The least that the output's store takes of a range that is not the last.
        transfer_bytes: What stores hold of objects that arrive or are sent, at the least.
        held_inputs: Inputs of which a store holds what has arrived; 0 where the kernel does that.
    """

    files: int
    count: int
    item_bytes: int
    header_bytes: int
    input_bytes: int
    plane_bytes: int
    ranged: bool
    parse_bytes: int = 0
    staging: bool = False
    output_header_bytes: int = 128
    output_number_bytes: int = 8
    least_range_bytes: int = 1
    transfer_bytes: int = 0
    held_inputs: int = 0

    @property
    def least_tile_length(self) -> int:
        """Numbers of the shortest tile whose range of the output its store takes; all where the output is shorter."""
        return min(max(1, self.count), -(-self.least_range_bytes // self.output_number_bytes))


class Limits(msgspec.Struct, frozen=True):
    """What a plan must keep to; None leaves the choice to the planner."""

    workers: int
    memory_bytes: int
    fan_in: int
    partition: int | None = None
    tiles: int | None = None


class Candidate(msgspec.Struct, frozen=True):
    """One way to run. ``requests`` counts objects opened and written; ``worker_bytes`` is over a worker's imports."""

    partition: int
    tiles: int
    tile_length: int
    exponent: int
    phases: int
    tasks: int
    bytes_read: int
    bytes_written: int
    requests: int
    worker_bytes: int
    seconds: float
    fits: bool


class PlanReport(msgspec.Struct, frozen=True):
    """The candidates, which of them runs, and why."""

    files: int
    count: int
    shape: tuple[int, ...]
    dtype: str
    format: str
    input_bytes: int
    ranged: bool
    workers: int
    memory_bytes: int
    candidates: tuple[Candidate, ...]
    chosen: int
    reason: str
    notes: tuple[str, ...] = ()


def plan_candidates(workload: Workload, limits: Limits, rates: Rates) -> tuple[Candidate, ...]:
    """Return the best number of tiles for every partition that is allowed, by rising partition.

    Raises:
        PlanError: The fan-in, the partition or the number of tiles make no tree, or tiles are asked for where the
            format cannot be read by range.
    """
    if limits.fan_in < 2:
        raise PlanError(f"fan-in {limits.fan_in} makes no tree; it must be at least 2")
    if limits.tiles is not None and limits.tiles < 1:
        raise PlanError(f"--tiles {limits.tiles} is not a number of index ranges; it must be at least 1")
    if limits.tiles is not None and limits.tiles > 1 and not workload.ranged:
        raise PlanError(f"--tiles {limits.tiles}: inputs of this format cannot be read by index range; leave it at 1")
    if limits.tiles is not None and -(-max(1, workload.count) // limits.tiles) < workload.least_tile_length:
        raise PlanError(
            f"--tiles {limits.tiles} cuts the result into ranges of fewer than "
            f"{byte_size(workload.least_range_bytes)}, the shortest part of an upload; give at most "
            f"{max(1, workload.count // workload.least_tile_length)}"
        )
    if limits.partition is not None:
        if limits.partition < limits.fan_in:
            raise PlanError(
                f"partition {limits.partition} is less than the fan-in {limits.fan_in}; the nearest is {limits.fan_in}"
            )
        exponents = [partition_exponent(limits.partition, limits.fan_in)]
    else:
        exponents = list(range(1, max(1, levels_above(workload.files, limits.fan_in)) + 1))
    return tuple(
        min(_candidates_of(workload, limits, rates, exponent), key=lambda each: (not each.fits, _rank(each)))
        for exponent in exponents
    )


def choose(candidates: tuple[Candidate, ...], workload: Workload, limits: Limits) -> tuple[int, str]:
    """Return the index of the candidate that runs, and the reason in one sentence.

    Raises:
        PlanError: None fits the memory; the message says what the leanest needs, why, and what to raise.
    """
    fitting = [index for index, each in enumerate(candidates) if each.fits]
    if not fitting:
        raise PlanError(_too_little_memory(candidates, workload, limits))
    best = min(fitting, key=lambda index: candidates[index].seconds)
    chosen = candidates[best]
    if limits.partition is not None:
        return best, f"partition {limits.partition} was asked for"
    beaten = f"the shortest estimate of {len(candidates)} partitions" if len(candidates) > 1 else "the only partition"
    left_out = len(candidates) - len(fitting)
    over = f" ({left_out} did not fit {byte_size(limits.memory_bytes)} a worker)" if left_out else ""
    how = "no phases, so no intermediates" if chosen.phases == 1 else f"{chosen.phases} phases"
    return best, f"{beaten}{over}: {how}, {counted(chosen.tasks, 'task')} for {counted(limits.workers, 'worker')}"


def _candidates_of(workload: Workload, limits: Limits, rates: Rates, exponent: int) -> Iterator[Candidate]:
    tree = Tree(files=workload.files, fan_in=limits.fan_in, exponent=exponent)
    for length in sorted(set(_tile_lengths(workload, limits, tree))):
        yield _candidate(workload, limits, rates, tree, length)


def _rank(candidate: Candidate) -> float:
    return candidate.seconds if candidate.fits else candidate.worker_bytes


def _tile_lengths(workload: Workload, limits: Limits, tree: Tree) -> Iterator[int]:
    whole = max(1, workload.count)
    if not workload.ranged:
        yield whole
        return
    if limits.tiles is not None:
        yield -(-whole // limits.tiles)
        return
    smallest = max(1, _SMALLEST_TILE_BYTES // max(1, workload.item_bytes), workload.least_tile_length)
    length = whole
    while True:
        yield length
        half = _rounded(-(-length // 2))
        if length <= smallest or half < workload.least_tile_length:
            break
        length = half
    # One for each worker, which halving meets only where they are a power of two.
    share = _rounded(-(-whole // limits.workers))
    if share >= smallest:
        yield min(whole, share)
    if workload.least_tile_length < whole:
        yield min(whole, _rounded(workload.least_tile_length))
    room = limits.memory_bytes - _fixed_bytes(workload, tree)
    fitting = room // (_levels(tree) * workload.plane_bytes)
    if workload.least_tile_length <= fitting < whole:
        yield max(1, fitting // _TILE_ROUNDING * _TILE_ROUNDING or fitting)


def _rounded(length: int) -> int:
    return length if length < _TILE_ROUNDING else -(-length // _TILE_ROUNDING) * _TILE_ROUNDING


def _levels(tree: Tree) -> int:
    return max(1, min(tree.exponent, tree.levels))


def _fixed_bytes(workload: Workload, tree: Tree) -> int:
    children = min(tree.partition, tree.width(1)) if tree.phases > 1 else 0
    return RESERVE_BYTES + BUFFER_BYTES + workload.parse_bytes + workload.transfer_bytes + children * _CHILD_BYTES


def _worker_bytes(workload: Workload, tree: Tree, length: int) -> int:
    length = min(length, workload.count)
    staging = 8 * length if workload.staging else 0
    return _fixed_bytes(workload, tree) + _levels(tree) * length * workload.plane_bytes + staging


def _candidate(workload: Workload, limits: Limits, rates: Rates, tree: Tree, length: int) -> Candidate:
    tiles = max(1, -(-workload.count // length))
    files, count = workload.files, workload.count
    read = workload.input_bytes
    if workload.ranged:
        read = files * (tiles * workload.header_bytes + count * workload.item_bytes)
    rate = rates.read_bytes_per_second if workload.ranged else rates.parse_bytes_per_second
    written = requests = tasks = 0
    partial_bytes = tiles * partial_head_bytes(length) + count * workload.plane_bytes
    seconds = rates.start_seconds
    total_read = 0
    for phase in range(1, tree.phases + 1):
        nodes = tree.tasks(phase)
        children = files if phase == 1 else tree.partials_read(phase)
        phase_read = read if phase == 1 else children * partial_bytes
        phase_written = nodes * partial_bytes
        phase_tasks = nodes * tiles
        work = (
            phase_read / (rate if phase == 1 else rates.partial_read_bytes_per_second)
            + phase_written / rates.write_bytes_per_second
            + tiles * (children * (rates.object_seconds if phase == 1 else rates.partial_seconds))
            + tiles * nodes * rates.partial_seconds
            + phase_tasks * rates.task_seconds
        )
        # Graham's bound for list scheduling: an even share, plus what the longest task leaves to wait for. Where tasks
        # are alike they end in rounds, and less is waited for.
        workers = limits.workers
        longest = work / phase_tasks * (min(tree.partition, children) * nodes / children)
        waiting = longest * (1 - 1 / workers)
        rounds = -(-phase_tasks // workers) * work / phase_tasks
        seconds += min(work / workers + waiting, rounds + rates.waiting_share * waiting)
        total_read += phase_read
        written += phase_written
        requests += tiles * (children + nodes)
        tasks += phase_tasks
    worker_bytes = _worker_bytes(workload, tree, length)
    return Candidate(
        partition=tree.partition,
        tiles=tiles,
        tile_length=length,
        exponent=tree.exponent,
        phases=tree.phases,
        tasks=tasks,
        bytes_read=total_read,
        bytes_written=written + workload.output_header_bytes + count * workload.output_number_bytes,
        requests=requests + tiles,
        worker_bytes=worker_bytes,
        seconds=seconds,
        fits=worker_bytes <= limits.memory_bytes,
    )


def with_room_to_arrive(candidate: Candidate, workload: Workload, limits: Limits) -> tuple[Candidate, int]:
    """Give inputs that arrive over a network what memory is left, so that the next ones come while one is added.

    Returns:
        The candidate with the memory it then takes, and the bytes that may be held of each input.
    """
    if not workload.held_inputs:
        return candidate, BUFFER_BYTES
    wanted = min(_LONGEST_HOLD, candidate.tile_length * workload.item_bytes if workload.ranged else _LONGEST_HOLD)
    left = max(0, limits.memory_bytes - candidate.worker_bytes) // workload.held_inputs
    hold = max(BUFFER_BYTES, min(wanted, BUFFER_BYTES + left))
    more = workload.held_inputs * (hold - BUFFER_BYTES)
    return msgspec.structs.replace(candidate, worker_bytes=candidate.worker_bytes + more), hold


def _too_little_memory(candidates: tuple[Candidate, ...], workload: Workload, limits: Limits) -> str:
    leanest = min(candidates, key=lambda each: each.worker_bytes)
    levels = max(1, min(leanest.exponent, levels_above(workload.files, limits.fan_in)))
    planes = levels * min(leanest.tile_length, workload.count) * workload.plane_bytes
    accumulators = "1 accumulator takes" if levels == 1 else f"{levels} accumulators take"
    parts = [f"{accumulators} {byte_size(planes)}"]
    if workload.staging:
        parts.append(f"a whole input is held before it is added, {byte_size(8 * workload.count)}")
    rest = leanest.worker_bytes - planes - 8 * workload.count * workload.staging - workload.transfer_bytes
    if workload.transfer_bytes:
        parts.append(f"objects on their way take {byte_size(workload.transfer_bytes)}")
    parts.append(f"buffers and reserve take {byte_size(rest)}")
    remedy = f"raise --memory to {-(-leanest.worker_bytes // (1 << 20))}MiB"
    if not workload.ranged:
        parts.append("inputs of this format cannot be read by index range, so they are not cut into tiles")
    elif limits.tiles is not None:
        remedy += f", or ask for more than {counted(limits.tiles, 'tile')}"
    if limits.partition is not None and limits.partition > limits.fan_in:
        remedy += ", or lower --partition"
    return (
        f"--memory {byte_size(limits.memory_bytes)} is too little: a worker needs at least "
        f"{byte_size(leanest.worker_bytes)}, because {'; '.join(parts)}; {remedy}"
    )
