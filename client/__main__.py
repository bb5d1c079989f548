"""`python -m client` is the `dream` command."""

from client.cli import main

if __name__ == "__main__":
    main()
