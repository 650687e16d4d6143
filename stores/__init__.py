"""Files and places: artifact stores, digests, atomic publication."""
