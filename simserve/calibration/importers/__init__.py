"""Readers of operator tables that other projects published, one module per project."""
