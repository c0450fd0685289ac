"""How far off this machine measures: a server of known timing, asked at the load about to be used."""
