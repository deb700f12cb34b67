"""One optimiser step whatever the topology, as a table: largest differences of the gradients, in float64.

python tests/soak/equivalence.py --out benchmarks/results/equivalence.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "training")]

from test_topologies import FAMILIES, LOSSES, ONE_BATCH, by_topology, largest_difference  # noqa: E402

from benchmarks.machine import measured_on  # noqa: E402


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), help="Write the table there, as JSON.")
def main(out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        topologies = by_topology(Path(folder))
    rows = []
    for family in FAMILIES:
        expected = topologies[family].pop(ONE_BATCH)
        for topology, found in topologies[family].items():
            row = {
                "family": family,
                "topology": topology,
                "losses": len(LOSSES[family]),
                "parameters": sum("loss_" not in name for name in expected),
                "largest_relative_difference": largest_difference(found, expected, losses=False),
            }
            rows.append(row)
            click.echo(f"{family:8} {topology:22} {row['largest_relative_difference']:.1e}")
    report = {
        **measured_on("torch"),
        "benchmark": "equivalence",
        "what": f"gradients of one step of 8 samples against {ONE_BATCH}, float64, frozen statistics",
        "rows": rows,
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
