"""SAM 2 joined with the detectors."""
