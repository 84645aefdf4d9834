"""Layers: planned, found or made once, and assembled to images."""
