"""`python -m cbir` is `cbir`."""

from cbir.cli.main import main

if __name__ == "__main__":
    main()
