"""Driving data: nuScenes tables to one index, index to samples."""
