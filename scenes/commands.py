"""`bevnext-sam2 data`: make, get, index, check and import data sets."""

from __future__ import annotations

from typing import Final

import click

from configs.lazy_group import LazyGroup

COMMANDS: Final = {
    "synth": ("scenes.synthetic.command:synth", "Make the synthetic driving set."),
    "index": ("scenes.index_command:index", "Build the index that loading reads."),
    "check": ("scenes.check_command:check", "Find every fault of a data set; say what to download."),
    "fetch": ("scenes.fetch_command:fetch", "Get archives of a data set by their links, verify and unpack them."),
    "mirror": ("scenes.mirror_command:mirror", "Fetch the tables of a data set on S3."),
    "import": (
        "scenes.import_command:import_infos_command",
        "Make an index from info pickles, without executing them.",
    ),
}


@click.group(cls=LazyGroup, subcommands=COMMANDS)
def data() -> None:
    """Make, index and check data sets in nuScenes format."""
