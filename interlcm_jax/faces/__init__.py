"""Whole photos: finding faces, aligning them, and pasting them back restored."""
