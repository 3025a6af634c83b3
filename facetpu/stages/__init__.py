"""The host's stages, one file each: files in, files out. No stage imports another, and none imports click."""
