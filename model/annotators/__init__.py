"""Several people who label the same images: what is right, and how often each of them is."""
