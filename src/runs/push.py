"""Metric lines to Katib's database, for Experiments whose collector is Push.

Through the messages of Katib's SDK; its own `report_metrics` knows the time to the second only, and sends a value that
is not finite.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from config.errors import InputError, UnreachableError
from runs import metric_lines
from runs.metric_lines import MetricLine

SECONDS = 10.0  # for the DB manager to answer


@contextlib.contextmanager
def push_metric_lines(address: str | None) -> Iterator[None]:
    """Sends every metric line that is written inside to Katib's DB manager.

    A line that cannot be sent waits for the next one; at the end all must have arrived.

    Args:
        address: host:port; None sends nothing.

    Raises:
        InputError: not inside a Katib trial, or without Katib's SDK.
        UnreachableError: the DB manager does not answer: at once, before hours of training, or at the end.
    """
    if address is None:
        yield
        return
    trial = os.environ.get("KATIB_TRIAL_NAME")
    if not trial:
        raise InputError("push_metrics: there is no KATIB_TRIAL_NAME: Katib sets it in the trials of an Experiment")
    try:
        import grpc
        from kubeflow.katib import katib_api_pb2 as messages
        from kubeflow.katib import katib_api_pb2_grpc as services
    except ImportError as error:
        raise InputError("push_metrics needs Katib's SDK: pip install 'isotrain[katib]'") from error
    waiting: list[Any] = []
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=SECONDS)
        except grpc.FutureTimeoutError as error:
            raise UnreachableError(f"push_metrics={address}: no answer in {SECONDS:g} s") from error
        stub = services.DBManagerStub(channel)

        def send(line: MetricLine) -> None:
            time = line.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            waiting.extend(
                messages.MetricLog(time_stamp=time, metric=messages.Metric(name=name, value=repr(value)))
                for name, value in line.values.items()
            )
            with contextlib.suppress(grpc.RpcError):
                flush()

        def flush() -> None:
            if waiting:
                log = messages.ObservationLog(metric_logs=waiting)
                request = messages.ReportObservationLogRequest(trial_name=trial, observation_log=log)
                stub.ReportObservationLog(request, timeout=SECONDS)
                waiting.clear()

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
            said = f"push_metrics={address}: {len(waiting)} values did not arrive: {error.code().name}"
            raise UnreachableError(said) from error
