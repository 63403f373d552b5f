"""One file for each verb of `hf-video`."""
