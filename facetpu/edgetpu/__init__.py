"""The Edge TPU's side of things: its compiler, what it supports, and what a compiled model holds."""
