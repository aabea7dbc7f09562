"""Who is asked next: backend rows, the pool of facts about them, strategies, the failover flow. Pure; imports wire and below."""
