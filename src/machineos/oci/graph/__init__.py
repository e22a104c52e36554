"""What a manifest leads to: walked, copied, checked."""
