"""report.html: a run's training, scores, plots and failures on one page."""
