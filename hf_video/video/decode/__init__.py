"""From bytes to frames: containers, packets, decoders, stills, and what else a caller may give as a video."""
