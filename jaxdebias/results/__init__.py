"""What a command found, as records, and their JSON."""
