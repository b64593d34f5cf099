"""Development tools outside the installed package."""
