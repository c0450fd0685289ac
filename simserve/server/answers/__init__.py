"""What simulated answers say: how long they are, their words, their JSON, their tool calls, their logprobs."""
