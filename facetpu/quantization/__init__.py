"""From a float graph to integers: the ranges, the conversion, and how much it cost where."""
