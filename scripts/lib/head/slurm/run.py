"""What a run on Slurm needs beside the executor plugin, at its beginning and at its end."""

import logging
import signal
from pathlib import Path
from typing import Any

from lib.head.slurm.checks import check_log_folder, check_needs, settle_status_command
from lib.head.slurm.head_process import HeadProcess, cancel_orphans
from lib.head.slurm.queue import NoAnswerError, queued_jobs
from lib.head.slurm.watch import Watch, ended_from_outside
from lib.patches import slurm_plugin, snakemake_graph

log = logging.getLogger("snakemake.logging")


class SlurmRun:
    """A run's dealings with Slurm; nothing happens where the run is not on Slurm."""

    def __init__(self, root: Path, patience: float) -> None:
        """`root`: the run's folder. `patience`: minutes, see `Watch`."""
        self.root = root
        self.patience = patience
        self._watch: Watch | None = None
        self._logs = Path()

    def begin(self, workflow: Any) -> None:
        """Called once a run, before its first job is submitted: checks, cancels orphans, starts the
        watch. Errors: UserError.
        """
        settings = workflow.executor_settings
        if not slurm_plugin.is_asked(settings):
            return
        check_needs(workflow.dag.needrun_jobs(), settings)
        self._logs = Path(settings.logdir or ".snakemake/slurm_logs").resolve()
        check_log_folder(self._logs)
        settle_status_command(settings)
        path = self.root / "work" / "head.json"
        cancel_orphans(path)
        # As Ctrl-C does it, also in a head process started by `nohup` or in the background, where
        # SIGINT is ignored.
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
        head = HeadProcess(path, slurm_plugin.job_name(snakemake_graph.executor_of(workflow)))
        head.write()
        self._watch = Watch(head, 60 * self.patience)
        self._watch.start()

    def end(self) -> None:
        """Called once a run, at its end: ends the watch, and tells of jobs that ended for a reason
        that is not in the rule's own log.
        """
        if self._watch is None:
            return
        self._watch.stop()
        head = self._watch.head
        try:
            nodes = {job.id: job.node for job in queued_jobs(head.job_name)}
        except NoAnswerError:
            nodes = {}
        for line in ended_from_outside(self._logs, head.started, nodes):
            log.warning(line)
