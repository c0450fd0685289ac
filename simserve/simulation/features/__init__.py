"""What a replica may have beside the plain engine: KV tiers. Without them nothing here runs."""
