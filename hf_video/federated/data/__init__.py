"""Who has which videos: partitions of one data set, LEAF, clients whose videos look different."""
