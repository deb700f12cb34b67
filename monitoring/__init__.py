"""What the hardware is doing. Never imports torch."""
