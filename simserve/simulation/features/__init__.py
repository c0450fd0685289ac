"""What a replica may have beside the plain engine: KV tiers, drafts, adapters. Without them nothing here runs."""
