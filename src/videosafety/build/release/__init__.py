"""What goes out: a release in several formats, without what is harmful outside of its restricted part; takedowns."""
