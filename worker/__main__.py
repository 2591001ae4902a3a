"""Why: `python -m worker` is the process that does the jobs, one after the other, until it is asked to stop."""

import logging
import time
from contextlib import suppress
from typing import Any, Final

import structlog
from rq import SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from service.store.jobs import SILENT_AFTER_S, JobQueue, mend_half_scheduled
from service.store.scripts import StoreError, store_errors
from worker.courier import start_courier
from worker.start import ASK_AGAIN_AFTER_S, begin, leave_on_signals

WORKER_TTL_S: Final = 30
MAINTENANCE_EVERY_S: Final = 30
LONGEST_RECONNECT_PAUSE_S: Final = 5.0

RQ_MISSES_ITS_STORE: Final = "Worker %s: could not connect to Redis instance"
"""How the line begins that RQ would log every few seconds while the queue is away."""

log = structlog.get_logger("tidegate.worker")


class Absence(logging.Filter):
    """Lets RQ say once that the queue is away, and no more until it was back."""

    noted = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is one to log."""
        is_news = not self.noted
        if str(record.msg).startswith(RQ_MISSES_ITS_STORE):
            self.noted = True
            return is_news
        return True


class JobWorker(SimpleWorker):
    """Does jobs in its own process, not in a fork: they are short, and when the worker is killed, so is its job."""

    max_connection_wait_time = LONGEST_RECONNECT_PAUSE_S
    asked_to_stop = False
    absence = Absence()

    def handle_warm_shutdown_request(self) -> None:
        """Remember it: `work` returns after its job, as it does when the store is gone."""
        self.asked_to_stop = True

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 - RQ's signature
        """How many seconds after the job's start its worker counts as dead."""
        return SILENT_AFTER_S

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Tell the queue that this worker lives, and the log if the queue had been away."""
        super().heartbeat(timeout, pipeline)
        if self.absence.noted and pipeline is None:
            self.absence.noted = False
            log.info("the queue answers again")

    def clean_registries(self) -> None:
        """Do RQ's maintenance, at the start and every MAINTENANCE_EVERY_S."""
        for queue in self.queues:
            mend_half_scheduled(queue)
        super().clean_registries()  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """Take no remote commands: whoever runs the process stops it with a signal."""


def work(jobs: JobQueue) -> bool:
    """Do jobs until asked to stop, or until the store fails; whether it was asked."""
    worker: JobWorker | None = None
    try:
        with store_errors():
            worker = JobWorker(
                [jobs.rq],
                connection=jobs.rq.connection,
                serializer=JSONSerializer,
                worker_ttl=WORKER_TTL_S,
                maintenance_interval=MAINTENANCE_EVERY_S,
            )
            worker.work(logging_level="WARNING")
    except StoreError as error:
        log.warning("the queue does not answer", reason=str(error))
    return worker is not None and worker.asked_to_stop


def main() -> None:
    """Run until a signal ends it; a job that has begun is ended first."""
    settings = begin("worker")
    jobs = JobQueue(settings.effective_queue_url)
    start_courier(settings)
    log.info("worker started")
    logging.getLogger("rq.worker").addFilter(JobWorker.absence)
    while not work(jobs):
        leave_on_signals()
        wait_for(jobs)
        log.info("the queue answers again")
    log.info("worker stopped")


def wait_for(jobs: JobQueue) -> None:
    """Return once the queue answers."""
    while True:
        time.sleep(ASK_AGAIN_AFTER_S)
        with suppress(StoreError):
            jobs.check()
            return


if __name__ == "__main__":
    main()
