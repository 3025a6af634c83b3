"""The recogniser on phones and on a bare Raspberry Pi: the model, and code that uses it without facetpu."""
