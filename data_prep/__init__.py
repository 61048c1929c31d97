"""Raw data to training-ready manifests: `python -m data_prep JOB`."""
