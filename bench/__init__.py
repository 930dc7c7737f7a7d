"""Measurements: not tests, and never timed in tests."""
