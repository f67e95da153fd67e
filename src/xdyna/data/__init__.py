"""Clips for training: made (`synthetic`) or read from files."""
