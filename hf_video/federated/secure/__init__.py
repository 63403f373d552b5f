"""Sums that the server learns without any client's part of them."""
