"""A model as a folder of files that recognises people in a browser, with no server behind it."""
