"""Building blocks that several detector families share."""
