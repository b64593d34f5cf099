"""What development needs besides the installed package."""
