"""Metric lines sent to Katib's database, for Experiments with the Push collector.

The messages are built with Katib's SDK. Its own `report_metrics` rounds times to seconds and sends values that are not
finite.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from config.errors import InputError, UnreachableError
from config.numbers import format_count
from runs import metric_lines
from runs.metric_lines import MetricLine

TIMEOUT = 10.0  # seconds
TRIAL_VARIABLE = "KATIB_TRIAL_NAME"  # in every pod of a trial


@contextlib.contextmanager
def push_metric_lines(address: str | None) -> Iterator[None]:
    """Send every metric line that is written within the block to Katib's DB manager.

    A line that cannot be sent is sent with the next one, at the latest at the end. Values that the database has of this
    trial, by time and name, are not sent again: a run that resumes reports its earlier lines once more, and those that an
    earlier pod could not send are added.

    Args:
        address: host:port; None sends nothing.

    Raises:
        InputError: This is not a Katib trial, or Katib's SDK is not installed.
        UnreachableError: The DB manager does not answer, at the start or at the end.
    """
    if address is None:
        yield
        return
    trial = os.environ.get(TRIAL_VARIABLE)
    if not trial:
        raise InputError(f"push_metrics works only in a trial of a Katib Experiment: {TRIAL_VARIABLE} is not set")
    try:
        import grpc
        from kubeflow.katib import katib_api_pb2 as messages
        from kubeflow.katib import katib_api_pb2_grpc as services
    except ImportError as error:
        raise InputError("push_metrics needs Katib's SDK: pip install -e '.[katib]' in isotrain's checkout") from error
    pending: list[Any] = []
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        except grpc.FutureTimeoutError as error:
            raise UnreachableError(f"push_metrics={address}: no answer in {TIMEOUT:g} s") from error
        stub = services.DBManagerStub(channel)
        stored: set[tuple[datetime, str]] = set()
        with contextlib.suppress(grpc.RpcError):  # then values are sent twice, which no metric strategy notices
            request = messages.GetObservationLogRequest(trial_name=trial)
            log = stub.GetObservationLog(request, timeout=TIMEOUT).observation_log
            stored = {(datetime.fromisoformat(row.time_stamp), row.metric.name) for row in log.metric_logs}

        def send(line: MetricLine) -> None:
            time = metric_lines.format_time(line.time)
            pending.extend(
                messages.MetricLog(time_stamp=time, metric=messages.Metric(name=name, value=repr(value)))
                for name, value in line.values.items()
                if (line.time, name) not in stored
            )
            with contextlib.suppress(grpc.RpcError):
                flush()

        def flush() -> None:
            if pending:
                log = messages.ObservationLog(metric_logs=pending)
                request = messages.ReportObservationLogRequest(trial_name=trial, observation_log=log)
                stub.ReportObservationLog(request, timeout=TIMEOUT)
                pending.clear()

        metric_lines.listeners.append(send)
        try:
            yield
        except BaseException:
            with contextlib.suppress(grpc.RpcError):
                flush()
            raise
        finally:
            metric_lines.listeners.remove(send)
        try:
            flush()
        except grpc.RpcError as error:
            raise UnreachableError(
                f"push_metrics={address}: {format_count(len(pending), 'value')} could not be sent: {error.code().name}"
            ) from error
