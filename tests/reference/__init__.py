"""The slow, obvious schedulers and replica that the fast ones must equal, step by step and time by time.

Written to be read: every step visits every request, every KV block is an object. ``simserve`` imports nothing of this.
"""
