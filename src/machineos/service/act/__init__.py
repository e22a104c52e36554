"""Making what runs equal to what was planned."""
