"""The simulation held against the real engine, step by step: the same requests, the same scheduler, real durations.

``drive`` runs the real engine and keeps a ledger of its steps, ``replay`` gives the simulation the same durations and
expects the same ledger, ``compare`` holds predicted step times and latencies against measured ones, ``draw`` draws.
"""
