"""The only rooms with sockets: loops that obey routing, connections, and the doors for foreign HTTP clients."""
