"""Training and measuring masks: examples with exact masks, losses, metrics, the two commands."""
