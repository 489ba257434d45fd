"""Dayfly runs CI and batch jobs, each in a container that exists for that job alone."""

__version__ = "0.1.0"
