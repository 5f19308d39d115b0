"""`nicemu firmware`: images looked at, checked and begun."""
