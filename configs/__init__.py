"""Recipes and the typed schema they are checked against. Imports nothing of ours and no torch."""
