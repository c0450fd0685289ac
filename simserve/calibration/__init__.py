"""Profiles from measurements, and predictions held against what real servers did."""
