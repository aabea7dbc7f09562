"""Other people's configuration files: text in, plain data out. Pure; imports errors and nothing else of ours."""
