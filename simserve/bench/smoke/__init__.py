"""Does a server work at all? Start it if need be, wait until it is well, ask four questions, stop it again."""
