"""Engines that start a run on other machines: a job description is written, and each node runs our own `train`."""
