"""The service from Python: ``distsum.Client``."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Final, Unpack

from distsum.arguments import JobOptions, options_of, paths_of, whole
from distsum.errors import ConfigurationError, InterruptedRunError, JobError, ServiceError
from distsum.results import content_of, mapped
from distsum.service.client import ServiceClient
from distsum.service.records import passing_result
from distsum.stores.routing import RoutingStore, absolute, is_remote
from distsum.wording import printable

if TYPE_CHECKING:
    from distsum.arguments import Inputs, Name
    from distsum.request import ReductionName, Summary
    from distsum.results import Array

_PATIENCE_SECONDS: Final = 20.0
_FINISHING_SECONDS: Final = 60.0


class Client(ServiceClient):
    """Has jobs done by a service, and looks after them and its workers; a context manager.

    Args:
        broker: The broker's virtual host, ``amqp://USER:PASSWORD@HOST/VHOST`` or ``amqps://…``. Settings are not read,
            and neither is ``DISTSUM_BROKER``.
        patience_seconds: How long to wait for a master's answer, should one be starting or another be taking over.

    Raises:
        UsageError: The address cannot be used.

    Nothing is connected before the first call. Calls block; they may be made from any thread, several at a time, and
    where an event loop runs, as in a notebook. The client needs the service's work folder, the inputs and the outputs
    under the names by which the service knows them.
    """

    def __init__(self, broker: str, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        from distsum.brokers.address import BrokerAddress
        from distsum.service.rabbitmq import RabbitTransport

        if not isinstance(broker, str):
            raise ConfigurationError(f"broker {printable(repr(broker), 80)}: must be a text such as amqp://HOST/VHOST")
        address = BrokerAddress.parse(broker, "broker")
        super().__init__(RabbitTransport(address), RoutingStore(), patience_seconds)

    def submit(
        self,
        reduction: ReductionName,
        inputs: Inputs,
        output: Name,
        *,
        priority: int = 0,
        **options: Unpack[JobOptions],
    ) -> str:
        """Have a job done; return its id as soon as it is stored: it will run, whatever happens to us.

        Args:
            reduction: ``mean``, ``sum``, ``min`` or ``max``.
            inputs: As for ``distsum.mean``; relative paths start from the current folder.
            output: Where the result is written (.npy, .raw or .txt by its suffix); likewise.
            priority: Jobs of a higher one go first.
            **options: See ``JobOptions``.

        Raises:
            UsageError: What was asked for cannot be done; nothing was changed.
            BadInputError: An input is bad, by its size or as the first one.
            UnreachableError: There is no broker, or no master answers; or S3 cannot be used.
            ServiceError: The service is of another version, or does not take the job.
            InterruptedRunError: Ctrl-C, when the job may have been accepted already.
            TypeError: There is no such option.
        """
        chosen = options_of(options, JobOptions, digest=True)  # type: ignore[arg-type]  # fewer than RunOptions
        number = whole("priority", priority)
        paths = paths_of(inputs, chosen.format)
        return self.submit_job(reduction, paths, os.fsencode(output), chosen, priority=number)

    def mean(
        self, inputs: Inputs, output: Name | None = None, *, priority: int = 0, **options: Unpack[JobOptions]
    ) -> Array:
        """Have the service compute the mean at every index of many files, and wait for it.

        Args:
            inputs: As for ``distsum.mean``.
            output: Where the result is written; None returns it in memory, by way of the service's work folder.
            priority: Jobs of a higher one go first.
            **options: See ``JobOptions``.

        Returns:
            What ``distsum.mean`` returns, to the bit.

        Raises:
            RemoteJobError: The job has failed.
            JobCancelledError: Somebody has cancelled it.
            InterruptedRunError: Ctrl-C; a job with an output goes on, and one without is cancelled.
            DistsumError: Likewise what ``submit`` raises.
        """
        return self._reduced("mean", inputs, output, priority, **options)

    def sum(
        self, inputs: Inputs, output: Name | None = None, *, priority: int = 0, **options: Unpack[JobOptions]
    ) -> Array:
        """Have the sum computed, as ``distsum.sum`` does; see ``mean`` for arguments and errors."""
        return self._reduced("sum", inputs, output, priority, **options)

    def min(
        self, inputs: Inputs, output: Name | None = None, *, priority: int = 0, **options: Unpack[JobOptions]
    ) -> Array:
        """Have the smallest numbers found, as ``distsum.min`` does; see ``mean`` for arguments and errors."""
        return self._reduced("min", inputs, output, priority, **options)

    def max(
        self, inputs: Inputs, output: Name | None = None, *, priority: int = 0, **options: Unpack[JobOptions]
    ) -> Array:
        """Have the largest numbers found, as ``distsum.max`` does; see ``mean`` for arguments and errors."""
        return self._reduced("max", inputs, output, priority, **options)

    def _reduced(
        self,
        reduction: ReductionName,
        inputs: Inputs,
        output: Name | None,
        priority: int,
        **options: Unpack[JobOptions],
    ) -> Array:
        if output is None:
            return self._in_memory(reduction, inputs, priority, **options)
        target = absolute(os.fsencode(output))  # also should the current folder be another by the time it is there
        job = self.submit(reduction, inputs, output, priority=priority, **options)
        try:
            return mapped(self._awaited(job), target)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"no longer waited for; job {job} goes on: wait({job!r}) follows it again, and cancel({job!r}) ends it"
            ) from None

    def _in_memory(
        self, reduction: ReductionName, inputs: Inputs, priority: int, **options: Unpack[JobOptions]
    ) -> Array:
        """Have a result written into the work folder, which everybody reaches, and take it from there."""
        import numpy as np

        written = passing_result(self.describe().work)
        if not is_remote(written):
            os.makedirs(os.path.dirname(written), exist_ok=True)
        job = self.submit(reduction, inputs, written, priority=priority, **options)
        try:
            self._awaited(job)
            array: Array = np.load(io.BytesIO(content_of(written)), allow_pickle=False)
        except KeyboardInterrupt:
            self._end(job)
            raise InterruptedRunError(
                f"interrupted; job {job} was cancelled, as there is no output to keep its result by"
            ) from None
        finally:
            self._store.delete(written)
        return array

    def _awaited(self, job: str) -> Summary:
        from distsum.embedded import interrupts_raised

        with interrupts_raised():
            return self.wait(job)

    def _end(self, job: str) -> None:
        """Cancel a job, or wait for the end of one that has come too far for that."""
        try:
            self.cancel(job)
        except ServiceError:
            with contextlib.suppress(JobError, TimeoutError):
                self.wait(job, _FINISHING_SECONDS)
