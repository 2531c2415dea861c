"""NewBie-image's drawing pipeline on diffusers' Next-DiT: prompt in, picture out, and a report of what ran."""
