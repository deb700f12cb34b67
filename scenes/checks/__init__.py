"""The parts of `data check`: tables, chains, splits, files, and what to download."""
