"""What a trained localizer gives back: maps, tables, reports."""
