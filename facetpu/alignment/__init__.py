"""What the stage align keeps of very many photos, and shows of them."""
