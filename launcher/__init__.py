"""The command line: plan, processes, diagnosis. Never imports torch."""
