"""Logger of metrics.csv that never overwrites that of an earlier run."""

import os
from itertools import count
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class HistoryLogger(CSVLogger):
    """Lightning's CSVLogger, but a metrics.csv of an earlier run is kept.

    It is renamed to metrics_before_N.csv when this run writes its first row, so a run that fails
    before changes nothing. Lightning's own deletes it as soon as the run is prepared.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer of metrics.csv, on the first process."""
        if self._experiment is None:
            self._experiment = _KeepingWriter(log_dir=self.log_dir)
        writer: ExperimentWriter = self._experiment  # type: ignore[assignment] # made above
        return writer


class _KeepingWriter(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._started = False

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes metrics.csv here."""

    def save(self) -> None:
        history = Path(self.metrics_file_path)
        if self.metrics and not self._started:
            self._started = True
            if os.path.lexists(history):  # a link would be written through
                names = (history.with_name(f"metrics_before_{n}.csv") for n in count())
                history.rename(next(name for name in names if not os.path.lexists(name)))
        super().save()
