"""First contact: the quickstart outside the repository, a new preference's files, and what is installed."""
