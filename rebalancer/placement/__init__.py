"""Search. A fully prepared integer `Problem` goes in, a `Solution` comes out. The only home of OR-Tools."""
