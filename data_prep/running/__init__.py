"""Long work on many machines that may fail: isolation, attempts, commits, parts, and what need not be redone."""
