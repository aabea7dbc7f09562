"""Other people's configuration files: text in; plain data, findings or text out. Only `disk` touches a file."""
