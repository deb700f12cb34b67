"""Pictures of samples, curves and metrics, drawn for papers and reports."""
