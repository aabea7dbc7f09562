"""hydra.yaml: machines, their cards, servers and models in one file. It makes a router, a plan, and other programs' files."""
