"""`python -m jaxdebias ...`, the same as `jaxdebias ...`."""

from jaxdebias.app.cli import main

if __name__ == "__main__":
    main()
