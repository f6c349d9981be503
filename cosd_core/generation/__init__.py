"""Algorithm 1 of the paper: rows, batches, sampling, schedules."""
