"""The commands ``pythae-geometric train``, ``generate`` and ``compare``, and what they share."""
