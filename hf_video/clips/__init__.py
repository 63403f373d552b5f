"""The one road from a video to `pixel_values`: which frames of it, which views, crops and sizes."""
