"""Sweeps: models x corpora x query sets, as the jobs that jobs/sweep starts."""
