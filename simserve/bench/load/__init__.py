"""The load: when requests are due, and the processes that send them then."""
