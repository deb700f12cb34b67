"""What is wrong with this machine for training, and what to do about it."""
