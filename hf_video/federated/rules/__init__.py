"""Rules of aggregation, of the server and of the clients."""
