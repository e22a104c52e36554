"""What every layer stands on: running programs, atomic files, digests, strict documents, time."""
