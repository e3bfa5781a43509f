"""The parts of a search on Ray Tune; `ray_jobs.tune` is the job."""
