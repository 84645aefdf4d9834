"""Root file systems in folders: images unpacked into them, and programs run in them without an engine."""
