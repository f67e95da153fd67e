"""Measuring clips: files and arrays in, numbers with their protocol out.

Nothing here knows models, pipelines or training: our output and anybody's are measured through the same door.
"""
