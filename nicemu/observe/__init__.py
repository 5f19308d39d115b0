"""What a run leaves behind. Reads tables only."""
