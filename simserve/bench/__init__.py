"""A load client for every OpenAI-like server that tells the truth about latency, and a smoke test.

``wire/`` sends and stamps, ``backends/`` knows what servers say, ``datasets/`` what they are asked, ``load/`` when;
``measure/`` turns stamps into figures and ``report/`` shows them. Times are seconds of ``time.perf_counter``, which on
one machine all processes share. Nothing is parsed while a run is on: bytes are kept and read afterwards.
"""
