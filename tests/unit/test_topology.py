"""Queues are made so that nothing is lost with the versions of RabbitMQ that there are."""

from __future__ import annotations

import pytest

from distsum.brokers.topology import DEAD, REFUSED, REQUESTS, RESULTS, TASKS, VIEWS, queues

MADE = {queue.name: queue.arguments for queue in queues(delivery_limit=4)}


def test_a_task_is_handed_out_four_times_and_then_told_of():
    assert MADE[TASKS]["x-delivery-limit"] == 3  # times that it comes back
    assert MADE[TASKS]["x-dead-letter-routing-key"] == DEAD
    assert MADE[TASKS]["x-dead-letter-strategy"] == "at-least-once"


@pytest.mark.parametrize("name", [RESULTS, DEAD, REFUSED])
def test_what_is_told_is_not_dropped_after_the_twenty_times_that_rabbitmq_4_would_allow(name):
    assert MADE[name]["x-queue-type"] == "quorum"
    assert MADE[name]["x-delivery-limit"] >= 100_000


@pytest.mark.parametrize("name", [RESULTS, REQUESTS, VIEWS])
def test_one_process_at_a_time_is_told(name):
    assert MADE[name]["x-single-active-consumer"] is True
