"""The intermediate representation: `nodes` and `expr` are all of it; the rest reads or rewrites them."""
