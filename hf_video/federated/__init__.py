"""Learning together without sharing videos."""
