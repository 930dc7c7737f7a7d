"""Tables that spreadsheets open."""

# What they take for a formula where a cell begins with it, or skip on the way to one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: with an apostrophe before one."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
