"""Conversations: clients who send each turn with all before it, and the server's own answers in it.

The defects of the well-known script for this are not here: no client stops while its conversations are unfinished
unless told to, a rate is a rate and not a pause after each answer, every chunk is counted, the run ends with the last
answer to come, and no tokenizer is needed.
"""
