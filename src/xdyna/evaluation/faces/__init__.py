"""Faces: finding and aligning them, telling identities and expressions apart, and the metrics made of that."""
