"""Jobs that a person runs: each a story told from the rooms below. Imports router and everything under it."""
