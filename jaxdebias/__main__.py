"""`python -m jaxdebias ...`, the same as `jaxdebias ...`."""

from jaxdebias.cli import main

if __name__ == "__main__":
    main()
