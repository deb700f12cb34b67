"""The training engine. Started as a process by torchrun; nothing imports it."""
