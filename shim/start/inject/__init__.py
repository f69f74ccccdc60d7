"""Put an allow in front of a filter that is being loaded. Standard library only."""
