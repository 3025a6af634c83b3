"""A house with people and cameras: who is seen is told to a browser, and is enrolled, named and erased there."""
