"""What lies between NICs: links, one switch, impairments. Everything is a record; times are virtual ns."""
