"""The engine: one optimiser step whatever the topology, and a run that can be stopped and taken up again anywhere.

Inside this folder imports are relative: the `sam2` distribution installs another package of this name.
"""
