"""Pydantic classes of what people write: checked once at the door, frozen ever after."""
