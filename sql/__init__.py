"""Numbered migrations of the tables."""
