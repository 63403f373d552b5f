"""A federation over a network: keys, the server, and what a site runs, on Flower's SuperLink and SuperNode."""
