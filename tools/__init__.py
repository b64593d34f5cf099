"""What working on the project needs beside the installed package."""
