"""A run for people and for programs: tables, vLLM's block and JSON, rows of requests, a workbook, a page."""
