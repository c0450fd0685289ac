"""HTTP/1.1 as a measuring instrument: requests encoded ahead, answers stamped as they arrive and kept as bytes."""
