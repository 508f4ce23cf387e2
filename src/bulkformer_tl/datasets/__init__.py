"""Placeholder docstring, replaced with the first function."""
