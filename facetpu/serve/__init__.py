"""A house with cameras and people: it tells whom it sees, and has people enrolled, renamed and erased."""
