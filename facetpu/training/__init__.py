"""What a training consists of beside its network and its losses."""
