"""The tables of a zoo: columns, building, reading, and the cards that describe them."""
