"""Many files, or long ones: labels of a folder, and an index."""
