"""Where rows come from: folders, lists, published formats, `datasets`, tar shards; and their division into splits."""
