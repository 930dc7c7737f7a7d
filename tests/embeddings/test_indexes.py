"""The life of an index: exact, building, indexed, and back; settings; what readers see."""
