"""The words servers speak: bytes in, events out. Knows HTTP bodies and dialects; imports reply and errors; touches no network."""
