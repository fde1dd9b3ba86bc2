"""Whatever arrives from a broker that others may write to is one of our messages, or is refused with a reason."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distsum.brokers.envelope import (
    APPLICATION,
    MAX_MESSAGE_BYTES,
    PROTOCOL_HEADER,
    Envelope,
    MessageTooLongError,
    RefusedError,
    seal,
    unseal,
)
from distsum.messages import (
    FROM_WORKER_RESULTS,
    FROM_WORKER_TELEMETRY,
    PROTOCOL,
    RUN_TASK,
    TO_WORKER_CONTROL,
    CancelTask,
    Heartbeat,
    RunTask,
    TaskFailed,
    TaskId,
)
from distsum.wording import printable

DECODERS = [RUN_TASK, TO_WORKER_CONTROL, FROM_WORKER_RESULTS, FROM_WORKER_TELEMETRY]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TASK = TaskId("job", 1, 0, 3)


def ours(body: bytes) -> Envelope:
    return Envelope(body, "RunTask")


@pytest.mark.parametrize(
    ("message", "decoder"),
    [
        (RunTask(TASK, b"/work"), RUN_TASK),
        (CancelTask(TASK), TO_WORKER_CONTROL),
        (TaskFailed("w", TASK, "error", "why"), FROM_WORKER_RESULTS),
        (Heartbeat("w", None, 5), FROM_WORKER_TELEMETRY),
    ],
)
def test_a_message_goes_through_its_channel_and_no_other(message, decoder):
    assert unseal(seal(message), decoder) == message
    for other in DECODERS:
        if other is not decoder and not (isinstance(message, RunTask) and other is TO_WORKER_CONTROL):
            with pytest.raises(RefusedError, match="no message of this channel"):
                unseal(seal(message), other)


@given(body=st.binary(max_size=300) | VALUES.map(msgspec.msgpack.encode), decoder=st.sampled_from(DECODERS))
@example(body=b"\x91" * 5000 + b"\xc0", decoder=RUN_TASK)
@example(body=b"", decoder=RUN_TASK)
def test_any_body_is_a_message_or_refused(body, decoder):
    message, reason = None, ""
    try:
        message = unseal(ours(body), decoder)
    except RefusedError as error:
        reason = str(error)
    assert (message is None) == ("no message of this channel" in reason)
    assert printable(reason, 1000) == reason
    assert message is None or unseal(seal(message), decoder) == message


@given(application=st.text(max_size=50), protocol=VALUES)
def test_what_is_not_from_distsum_or_of_another_protocol_is_refused_unread(application, protocol):
    body = seal(RunTask(TASK, b"/work")).body
    if application != APPLICATION:
        with pytest.raises(RefusedError, match="sender"):
            unseal(Envelope(body, "RunTask", application), RUN_TASK)
    if protocol != PROTOCOL or type(protocol) is not int:
        with pytest.raises(RefusedError, match="protocol"):
            unseal(Envelope(body, "RunTask", headers={PROTOCOL_HEADER: protocol}), RUN_TASK)


def test_the_longest_message_is_taken_and_a_longer_one_refused_on_both_sides():
    room = MAX_MESSAGE_BYTES - len(seal(RunTask(TASK, b"")).body) - 8
    sealed = seal(RunTask(TASK, b"w" * room))
    assert unseal(sealed, RUN_TASK).work == b"w" * room
    with pytest.raises(MessageTooLongError, match="RunTask"):
        seal(RunTask(TASK, b"w" * (room + 9)))
    with pytest.raises(RefusedError, match="at most"):
        unseal(ours(sealed.body + b"\0" * 9), RUN_TASK)
