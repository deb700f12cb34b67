"""`bevnext-sam2 data mirror`."""

from __future__ import annotations

from pathlib import Path

import click

from configs.errors import UsageError
from configs.remote_location import DataRoot, remote_address
from scenes.remote_root import fetch_tables


@click.command()
@click.argument("address", metavar="s3://BUCKET/FOLDER", type=DataRoot())
def mirror(address: Path) -> None:
    """Fetch the tables of a data set on S3 (again); sensor files follow when they are first read.

    Every command takes `--data-root s3://BUCKET/FOLDER`. The mirror lies in data/remote, or in the folder that
    BEVNEXT_SAM2_REMOTE_CACHE names. Needs the extra `s3`; credentials and endpoint are those of the AWS tools.

    Exit codes: 0 done, 2 no such place or the extra is missing, 3 the store does not answer or holds no tables.
    """
    remote = remote_address(address)
    if remote is None:
        raise UsageError(f"{address} is a folder of this machine", fix="write s3://BUCKET/FOLDER")
    fetch_tables(remote, address, lambda name: click.echo(name, err=True))
    click.echo(f"{remote} is mirrored in {address}")
