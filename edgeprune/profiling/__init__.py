"""What a device can do, measured there."""
