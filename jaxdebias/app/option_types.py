"""Types of options, shown in --help without the word None."""

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

Str = Annotated[str | None, arg(metavar="STR", help_behavior_hint="")]
Int = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Float = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Names = Annotated[tuple[str, ...] | None, arg(metavar="STR ...", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
Bool = Annotated[bool | None, arg(metavar="{True,False}", help_behavior_hint="")]
"""Each None where the user gave nothing."""
Flat = OmitArgPrefixes
"""Options of a group are named without the name of the group."""
