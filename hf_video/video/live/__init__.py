"""Video that is shown while it is made: cameras, network streams, and files at their own speed."""
