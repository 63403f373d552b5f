"""What server and clients tell each other, and how Flower carries it."""
