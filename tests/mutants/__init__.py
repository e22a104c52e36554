"""``make mutants``: small faults put into the code that decides, to see which the tests notice."""
