"""What can be typed after `dream`, a module per subject. `client.cli` puts them together."""
