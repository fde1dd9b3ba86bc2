"""The planner: what it offers, what it chooses, and what it refuses."""

from __future__ import annotations

import time
import tracemalloc

import msgspec
import numpy as np
import pytest

from benchmarks.planning import planned_apart
from distsum.errors import PlanError
from distsum.manifest import Input, Manifest
from distsum.planning import S3_RATES, Limits, Rates, Workload, choose, plan_candidates, with_room_to_arrive

GIB = 1 << 30


def workload(files, count, *, ranged=True, item_bytes=8, staging=False):
    return Workload(
        files=files,
        count=count,
        item_bytes=item_bytes,
        header_bytes=128,
        input_bytes=files * (128 + count * item_bytes),
        plane_bytes=8,
        ranged=ranged,
        staging=staging,
    )


def limits(**changes):
    return msgspec.structs.replace(Limits(workers=2, memory_bytes=512 << 20, fan_in=5), **changes)


def chosen(work, limit):
    candidates = plan_candidates(work, limit, Rates())
    return candidates[choose(candidates, work, limit)[0]]


def test_large_files_are_cut_into_tiles_without_phases():
    plan = chosen(workload(100, 2_000_000), limits())
    assert plan.phases == 1
    assert plan.tiles >= 4
    assert plan.bytes_read < 1.01 * 100 * 16_000_128


def test_over_a_network_each_worker_gets_one_range_of_all_files_and_nothing_is_written_between():
    for workers in (2, 3, 4):
        work, limit = workload(100, 8_000_000), limits(workers=workers, memory_bytes=GIB)
        candidates = plan_candidates(work, limit, S3_RATES)
        plan = candidates[choose(candidates, work, limit)[0]]
        assert (plan.phases, plan.tasks % workers) == (1, 0)


def test_many_small_files_are_added_in_phases_without_tiles():
    plan = chosen(workload(20_000, 1_000), limits())
    assert plan.tiles == 1
    assert plan.phases >= 2
    assert plan.partition in {125, 625}


def test_text_is_never_cut_into_tiles():
    candidates = plan_candidates(workload(200, 100_000, ranged=False), limits(), Rates())
    assert {each.tiles for each in candidates} == {1}


@pytest.mark.parametrize("memory", [8 << 20, 64 << 20, 512 << 20])
@pytest.mark.parametrize(("files", "count"), [(1, 1), (50, 2_000_000), (2_000, 2_000_000), (10**6, 10**6), (7, 10**9)])
def test_what_is_chosen_fits_the_memory_and_does_not_grow_with_files_or_numbers(memory, files, count):
    plan = chosen(workload(files, count), limits(memory_bytes=memory))
    assert plan.fits
    assert plan.worker_bytes <= memory


def test_a_staged_input_counts_as_memory():
    one = chosen(workload(10, 10**6, ranged=False), limits(partition=5))
    other = chosen(workload(10, 10**6, ranged=False, staging=True), limits(partition=5))
    assert other.worker_bytes - one.worker_bytes == 8 * 10**6


def test_too_little_memory_says_how_much_is_needed_why_and_what_to_do():
    work = workload(10, 10**8, ranged=False)
    words = r"needs at least 7\d\d\.\d MiB.*cannot be read by index range.*--memory to 7\d\dMiB"
    with pytest.raises(PlanError, match=words):
        chosen(work, limits())
    with pytest.raises(PlanError, match=r"ask for more than 1 tile$"):
        chosen(workload(10, 10**8), limits(tiles=1))
    needed = min(plan_candidates(work, limits(), Rates()), key=lambda each: each.worker_bytes).worker_bytes
    assert chosen(work, limits(memory_bytes=needed)).fits


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": 30}, "30 is not a power of the fan-in 5; the nearest are 25 and 125"),
        ({"partition": 3}, "3 is less than the fan-in 5; the nearest is 5"),
        ({"partition": 0}, "0 is less than"),
        ({"fan_in": 1}, "fan-in 1"),
        ({"tiles": 0}, "--tiles 0"),
    ],
)
def test_what_makes_no_tree_is_refused(changes, words):
    with pytest.raises(PlanError, match=words):
        plan_candidates(workload(100, 100), limits(**changes), Rates())


def test_tiles_of_text_are_refused():
    with pytest.raises(PlanError, match="index range"):
        plan_candidates(workload(100, 100, ranged=False), limits(tiles=2), Rates())


def test_tiles_are_no_shorter_than_the_store_of_the_output_takes():
    large = msgspec.structs.replace(workload(100, 4_000_000), least_range_bytes=5 << 20)
    for candidate in plan_candidates(large, limits(), Rates()):
        assert candidate.tiles == 1 or candidate.tile_length * 8 >= 5 << 20
    assert chosen(large, limits()).tiles > 1
    small = msgspec.structs.replace(workload(100, 500_000), least_range_bytes=5 << 20)
    assert chosen(small, limits()).tiles == 1
    with pytest.raises(PlanError, match=r"--tiles 9 .* fewer than 5.0 MiB.* at most 6"):
        plan_candidates(large, limits(tiles=9), Rates())
    assert chosen(large, limits(tiles=6)).tiles == 6


def test_what_is_on_its_way_counts_as_memory_and_grows_only_into_what_is_left():
    work = workload(10, 1_000_000)
    remote = msgspec.structs.replace(work, transfer_bytes=10 << 20, held_inputs=5)
    plain, more = chosen(work, limits(tiles=1)), chosen(remote, limits(tiles=1))
    assert more.worker_bytes - plain.worker_bytes == 10 << 20
    roomy, hold = with_room_to_arrive(more, remote, limits())
    assert hold == 8_000_000
    assert roomy.worker_bytes == more.worker_bytes + 5 * (hold - (1 << 20))
    tight = limits(memory_bytes=more.worker_bytes + 5_000_000)
    assert with_room_to_arrive(more, remote, tight)[0].worker_bytes == tight.memory_bytes
    assert with_room_to_arrive(plain, work, limits()) == (plain, 1 << 20)
    with pytest.raises(PlanError, match=r"objects on their way take 10.0 MiB"):
        chosen(remote, limits(memory_bytes=10 << 20))


def test_one_file_and_no_numbers_are_legal():
    assert chosen(workload(1, 5), limits()).tasks == 1
    assert chosen(workload(3, 0), limits()).tiles == 1


def test_ten_million_files_are_planned_in_seconds():
    began = time.process_time()
    plan = chosen(workload(10**7, 1000), limits())
    assert plan.fits
    assert plan.tasks > 100
    # No timing is asserted but this one: a plan that walked the files would take minutes.
    assert time.process_time() - began < 5


def test_an_input_costs_its_path_and_29_bytes():
    tracemalloc.start()
    count = 200_000
    manifest = Manifest(Input(b"/data/run42/member-%09d.npy" % index, 8128, bytes(8)) for index in range(count))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(manifest) == count
    # A growing buffer is at most an eighth longer than what it holds.
    assert used / count <= 1.125 * (len(b"/data/run42/member-000000000.npy") + 29) + 1


def test_a_million_inputs_take_no_more_memory_each_than_ten_million_may(tmp_path):
    # The process that plans takes some 35 MB itself, so that 100 bytes an input are just within 1 GiB. `just bench
    # planning` plans the ten million.
    real = tmp_path / "real.npy"
    np.save(real, np.ones(10))
    told = planned_apart(10**6, "", str(real))
    assert told["files"] == 10**6
    assert told["in_order"]
    assert told["bytes_per_input"] < 100
    # No timing is asserted but these: what compares everything with everything would take minutes.
    assert told["listing_seconds"] + told["planning_seconds"] < 60
